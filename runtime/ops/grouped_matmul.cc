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

// The matrices of `groups` groups in full, or as codes.
struct Weights {
  int64_t groups;
  int64_t rows;
  int64_t columns;
  const void* data;
  QuantizedMatrix codes = {};
  const void* scales = nullptr;
};

GroupedGemmSpec SpecOf(const Weights& weights, bool transpose, bool bias,
                       DType dtype) {
  return {.transpose = transpose,
          .bias = bias,
          .groups = weights.groups,
          .n = transpose ? weights.rows : weights.columns,
          .k = transpose ? weights.columns : weights.rows,
          .dtype = dtype,
          .codes = weights.codes};
}

Tensor Product(const Tensor& x, const Weights& weights,
               std::span<const int64_t> counts, bool transpose,
               const Tensor* bias) {
  CheckCounts(x, counts, weights.groups);
  const GroupedGemmSpec spec =
      SpecOf(weights, transpose, bias != nullptr, x.dtype());
  CHECK_EQ(x.dim(1), spec.k) << x.shape();
  GroupedGemmOperands operands = {
      .x = x.raw_data(), .weights = weights.data, .scales = weights.scales};
  if (bias != nullptr) {
    CHECK(bias->dtype() == x.dtype());
    CHECK_EQ(bias->num_elements(), weights.groups * spec.n);
    operands.bias = bias->raw_data();
  }
  const Tensor y =
      Tensor::Empty(x.device(), {x.dim(0), spec.n}, x.dtype(),
                    MemoryCategory::kActivations, "grouped product");
  operands.out = y.raw_data();
  Run(x.device(), counts, spec, operands);
  return y;
}

}  // namespace

Tensor GroupedMatMul(const Tensor& x, const Tensor& weights,
                     std::span<const int64_t> counts, bool transpose,
                     const Tensor* bias) {
  CHECK_EQ(weights.rank(), 3);
  CHECK(x.dtype() == weights.dtype());
  return Product(x,
                 {.groups = weights.dim(0),
                  .rows = weights.dim(1),
                  .columns = weights.dim(2),
                  .data = weights.raw_data()},
                 counts, transpose, bias);
}

Tensor GroupedMatMul(const Tensor& x, const QuantizedTensor& weights,
                     std::span<const int64_t> counts, bool transpose,
                     const Tensor* bias, std::string_view label) {
  const auto groups = static_cast<int64_t>(counts.size());
  const QuantizedMatrix& layout = weights.layout;
  CHECK_EQ(layout.rows % groups, 0) << label;
  const Weights codes = {.groups = groups,
                         .rows = layout.rows / groups,
                         .columns = layout.columns,
                         .data = weights.codes.raw_data(),
                         .codes = layout,
                         .scales = weights.scales.raw_data()};
  const GroupedGemmKernels& kernels = x.device().kernels().grouped_gemm;
  if (kernels.multiplies_codes != nullptr &&
      kernels.multiplies_codes(
          SpecOf(codes, transpose, bias != nullptr, x.dtype()))) {
    return Product(x, codes, counts, transpose, bias);
  }
  return GroupedMatMul(x,
                       Dequantize(weights, x.dtype(), label)
                           .Reshape({groups, codes.rows, codes.columns}),
                       counts, transpose, bias);
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
