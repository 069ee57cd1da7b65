#include "runtime/ops/grouped_matmul.h"

#include <numeric>

#include "runtime/core/log.h"
#include "runtime/ops/kernels.h"

namespace trireme {
namespace {

void CheckCounts(const Tensor& x, std::span<const int64_t> counts,
                 int64_t groups) {
  CHECK_EQ(x.rank(), 2);
  CHECK_EQ(static_cast<int64_t>(counts.size()), groups);
  const int64_t rows =
      std::accumulate(counts.begin(), counts.end(), int64_t{0});
  CHECK(rows == x.dim(0) || (x.device().dry() && rows < x.dim(0)))
      << rows << " rows in groups, of " << x.shape();
}

void Run(Device& device, std::span<const int64_t> counts,
         const GroupedGemmSpec& spec, GroupedGemmOperands operands) {
  Tensor workspace;
  const int64_t bytes = device.kernels().grouped_gemm.workspace_bytes(spec);
  if (bytes > 0) {
    workspace = Tensor::Empty(device, {bytes}, DType::kUint8,
                              MemoryCategory::kWorkspace, "grouped product");
    operands.workspace = workspace.raw_data();
  }
  device.kernels().grouped_gemm.run(device.stream(), counts, spec, operands);
}

}  // namespace

Tensor GroupedMatMul(const Tensor& x, const Tensor& weights,
                     std::span<const int64_t> counts, bool transpose,
                     const Tensor* bias) {
  CHECK_EQ(weights.rank(), 3);
  CHECK(x.dtype() == weights.dtype());
  CheckCounts(x, counts, weights.dim(0));
  const int64_t n = weights.dim(transpose ? 1 : 2);
  const int64_t k = weights.dim(transpose ? 2 : 1);
  CHECK_EQ(x.dim(1), k) << x.shape() << " times " << weights.shape();
  GroupedGemmOperands operands = {.x = x.raw_data(),
                                  .weights = weights.raw_data()};
  if (bias != nullptr) {
    CHECK(bias->dtype() == x.dtype());
    CHECK_EQ(bias->num_elements(), weights.dim(0) * n);
    operands.bias = bias->raw_data();
  }
  const Tensor y =
      Tensor::Empty(x.device(), {x.dim(0), n}, x.dtype(),
                    MemoryCategory::kActivations, "grouped product");
  operands.out = y.raw_data();
  Run(x.device(), counts,
      {.transpose = transpose,
       .bias = bias != nullptr,
       .groups = weights.dim(0),
       .n = n,
       .k = k,
       .dtype = x.dtype()},
      operands);
  return y;
}

void GroupedMatMulAccumulate(const Tensor& y, const Tensor& x,
                             std::span<const int64_t> counts,
                             const Tensor& out) {
  CHECK_EQ(out.rank(), 3);
  CHECK(x.dtype() == y.dtype());
  CHECK(out.dtype() == ComputeDType(x.dtype()));
  CheckCounts(x, counts, out.dim(0));
  CHECK_EQ(x.dim(0), y.dim(0));
  CHECK_EQ(y.dim(1), out.dim(1));
  CHECK_EQ(x.dim(1), out.dim(2));
  Run(x.device(), counts,
      {.accumulate = true,
       .groups = out.dim(0),
       .n = y.dim(1),
       .k = x.dim(1),
       .dtype = x.dtype()},
      {.x = x.raw_data(), .y = y.raw_data(), .out = out.raw_data()});
}

}  // namespace trireme
