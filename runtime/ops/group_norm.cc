#include "runtime/ops/group_norm.h"

#include "runtime/core/log.h"
#include "runtime/ops/kernels.h"

namespace trireme {

Tensor GroupNorm(const Tensor& x, int64_t groups, const Tensor& weight,
                 const Tensor& bias, double eps, Activation activation) {
  CHECK_GE(x.rank(), 2) << x.shape();
  const int64_t batch = x.dim(0), channels = x.dim(-1);
  CHECK(groups > 0 && channels % groups == 0)
      << channels << " channels in " << groups << " groups";
  CHECK(activation == Activation::kNone || activation == Activation::kSilu);
  for (const Tensor* vector : {&weight, &bias}) {
    CHECK_EQ(vector->num_elements(), channels);
    CHECK(vector->dtype() == x.dtype()) << vector->dtype();
  }
  Device& device = x.device();
  const Tensor y = Tensor::EmptyLike(x, "group norm");
  if (x.num_elements() == 0) return y;
  const int64_t pixels = x.num_elements() / (batch * channels);
  const Tensor sums =
      Tensor::Empty(device, {batch, GroupNormBlocks(pixels), 2, channels},
                    DType::kFloat64, MemoryCategory::kWorkspace, "group norm");
  const GroupNormArguments arguments = {
      .dtype = x.dtype(),
      .batch = batch,
      .pixels = pixels,
      .channels = channels,
      .groups = groups,
      .eps = eps,
      .activation = activation,
      .x = x.raw_data(),
      .weight = weight.raw_data(),
      .bias = bias.raw_data(),
      .block_sums = static_cast<double*>(sums.raw_data())};
  device.kernels().group_norm.forward(device.stream(), arguments, y.raw_data());
  return y;
}

}  // namespace trireme
