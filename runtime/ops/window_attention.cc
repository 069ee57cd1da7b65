#include "runtime/ops/window_attention.h"

#include "runtime/core/log.h"
#include "runtime/ops/kernels.h"

namespace trireme {
namespace {

WindowAttentionArguments ArgumentsOf(const WindowLayout& layout,
                                     const Tensor& qkv,
                                     const Tensor& log_scales,
                                     const Tensor& biases) {
  CHECK_GE(layout.window, 1);
  CHECK(layout.height % layout.window == 0 && layout.width % layout.window == 0)
      << layout.height << " x " << layout.width << " tokens in windows of "
      << layout.window;
  CHECK(layout.shift >= 0 && layout.shift < layout.window) << layout.shift;
  CHECK_EQ(qkv.rank(), 3);
  CHECK_EQ(qkv.dim(1), layout.height * layout.width);
  const int64_t heads = log_scales.num_elements();
  CHECK_EQ(qkv.dim(2) % (3 * heads), 0);
  CHECK_EQ(biases.shape(), (Shape{layout.differences(), heads}));
  CHECK(log_scales.dtype() == qkv.dtype() && biases.dtype() == qkv.dtype());
  return {.dtype = qkv.dtype(),
          .batch = qkv.dim(0),
          .height = layout.height,
          .width = layout.width,
          .window = layout.window,
          .shift = layout.shift,
          .heads = heads,
          .head_dim = qkv.dim(2) / (3 * heads),
          .qkv = qkv.raw_data(),
          .log_scales = log_scales.raw_data(),
          .biases = biases.raw_data()};
}

Tensor Scratch(const Tensor& like, const Shape& shape, DType dtype) {
  return Tensor::Empty(like.device(), shape, dtype, MemoryCategory::kWorkspace,
                       "window attention");
}

}  // namespace

Tensor WindowAttentionForward(const WindowLayout& layout, const Tensor& qkv,
                              const Tensor& log_scales, const Tensor& biases) {
  const WindowAttentionArguments arguments =
      ArgumentsOf(layout, qkv, log_scales, biases);
  const Tensor out = Tensor::Empty(
      qkv.device(), {qkv.dim(0), qkv.dim(1), qkv.dim(2) / 3}, qkv.dtype(),
      MemoryCategory::kActivations, "window attention");
  const Tensor scratch =
      Scratch(qkv, {arguments.tasks(), arguments.forward_scratch()},
              ComputeDType(qkv.dtype()));
  Device& device = qkv.device();
  device.kernels().window_attention.forward(device.stream(), arguments,
                                            out.raw_data(), scratch.raw_data());
  return out;
}

WindowAttentionBackwardResult WindowAttentionBackward(
    const WindowLayout& layout, const Tensor& qkv, const Tensor& log_scales,
    const Tensor& biases, const Tensor& grad_out) {
  const WindowAttentionArguments arguments =
      ArgumentsOf(layout, qkv, log_scales, biases);
  CHECK_EQ(grad_out.num_elements(), qkv.num_elements() / 3);
  CHECK_EQ(grad_out.dtype(), qkv.dtype());
  const DType compute = ComputeDType(qkv.dtype());
  WindowAttentionBackwardResult result;
  result.qkv = Tensor::EmptyLike(qkv, "window attention gradient");
  result.log_scales =
      Tensor::Empty(qkv.device(), log_scales.shape(), compute,
                    MemoryCategory::kActivations, "window attention gradient");
  result.biases = Tensor::EmptyLike(biases, "window attention gradient");
  const Tensor scratch =
      Scratch(qkv, {arguments.tasks(), arguments.backward_scratch()}, compute);
  const Tensor sums = Scratch(
      qkv, {arguments.tasks(), arguments.differences() + 1}, DType::kFloat64);
  Device& device = qkv.device();
  device.kernels().window_attention.backward(
      device.stream(), arguments,
      {.out = grad_out.raw_data(),
       .qkv = result.qkv.raw_data(),
       .log_scales = result.log_scales.raw_data(),
       .biases = result.biases.raw_data()},
      scratch.raw_data(), static_cast<double*>(sums.raw_data()));
  return result;
}

}  // namespace trireme
