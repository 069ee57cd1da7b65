#include "runtime/ops/normalization.h"

#include <cmath>
#include <utility>
#include <vector>

#include "runtime/core/log.h"
#include "runtime/device/host.h"
#include "runtime/ops/kernels.h"

namespace trireme {
namespace {

void* DataOf(const Tensor* tensor) {
  return tensor == nullptr ? nullptr : tensor->raw_data();
}

Tensor PartialSums(const Tensor& x, int64_t groups, int64_t rows_per_group,
                   int64_t sums, int64_t width) {
  return Tensor::Empty(
      x.device(), {groups, NormBlocksPerGroup(rows_per_group), sums, width},
      ComputeDType(x.dtype()), MemoryCategory::kWorkspace,
      "norm gradient sums");
}

NormArguments ArgumentsOf(NormKind kind, const Tensor& x, int64_t groups,
                          const NormResult& statistics) {
  NormArguments arguments;
  arguments.dtype = x.dtype();
  arguments.subtract_mean = kind == NormKind::kLayer;
  arguments.width = x.dim(-1);
  arguments.groups = groups;
  arguments.rows_per_group = x.num_elements() / x.dim(-1) / groups;
  arguments.x = x.raw_data();
  if (statistics.mean.defined()) arguments.mean = statistics.mean.raw_data();
  arguments.rstd = statistics.rstd.raw_data();
  return arguments;
}

NormResult EmptyResult(NormKind kind, const Tensor& x) {
  const int64_t rows = x.num_elements() / x.dim(-1);
  NormResult result;
  result.out = Tensor::EmptyLike(x, "norm");
  if (kind == NormKind::kLayer) {
    result.mean = Tensor::Empty(x.device(), {rows}, ComputeDType(x.dtype()),
                                MemoryCategory::kActivations, "norm mean");
  }
  result.rstd = Tensor::Empty(x.device(), {rows}, ComputeDType(x.dtype()),
                              MemoryCategory::kActivations, "norm rstd");
  return result;
}

// The result of a backward pass goes where add_to_x was, if nobody else holds
// that.
Tensor GradientTarget(const Tensor& x, const Tensor& add_to_x) {
  return add_to_x.defined() && add_to_x.unique()
             ? add_to_x
             : Tensor::EmptyLike(x, "norm gradient");
}

}  // namespace

NormResult NormModulateForward(NormKind kind, const Tensor& x,
                               const Tensor* scale, const Tensor* shift,
                               double eps) {
  CHECK_EQ(x.rank(), 3);
  CHECK((scale == nullptr) == (shift == nullptr));
  if (scale != nullptr) {
    CHECK_EQ(scale->shape(), (Shape{x.dim(0), x.dim(2)}));
    CHECK_EQ(shift->shape(), scale->shape());
    CHECK(scale->dtype() == x.dtype() && shift->dtype() == x.dtype());
  }
  NormResult result = EmptyResult(kind, x);
  Device& device = x.device();
  NormArguments arguments = ArgumentsOf(kind, x, x.dim(0), result);
  arguments.eps = eps;
  arguments.scale_offset = 1;
  arguments.scale = DataOf(scale);
  arguments.shift = DataOf(shift);
  device.kernels().norm.forward(device.stream(), arguments,
                                result.out.raw_data());
  return result;
}

NormModulateGradients NormModulateBackward(NormKind kind, const Tensor& x,
                                           const NormResult& forward,
                                           const Tensor* scale,
                                           const Tensor& grad_out,
                                           Tensor add_to_x) {
  CHECK_EQ(x.shape(), grad_out.shape());
  NormModulateGradients gradients;
  Tensor sums;
  if (scale != nullptr) {
    gradients.scale = Tensor::EmptyLike(*scale, "norm scale gradient");
    gradients.shift = Tensor::EmptyLike(*scale, "norm shift gradient");
    sums = PartialSums(x, x.dim(0), x.dim(1), 2, x.dim(2));
  }
  const void* add = add_to_x.defined() ? add_to_x.raw_data() : nullptr;
  gradients.x = GradientTarget(x, add_to_x);
  Device& device = x.device();
  NormArguments arguments = ArgumentsOf(kind, x, x.dim(0), forward);
  arguments.scale_offset = 1;
  arguments.scale = DataOf(scale);
  device.kernels().norm.backward(
      device.stream(), arguments, grad_out.raw_data(), add,
      gradients.x.raw_data(), sums.defined() ? sums.raw_data() : nullptr);
  if (scale != nullptr) {
    device.kernels().norm.sum_blocks(
        device.stream(), arguments, sums.raw_data(), 0, 2, /*accumulate=*/false,
        gradients.scale.raw_data());
    device.kernels().norm.sum_blocks(
        device.stream(), arguments, sums.raw_data(), 1, 2, /*accumulate=*/false,
        gradients.shift.raw_data());
  }
  return gradients;
}

NormResult NormAffineForward(NormKind kind, const Tensor& x,
                             const Tensor& weight, const Tensor* bias,
                             double eps) {
  CHECK_EQ(weight.num_elements(), x.dim(-1));
  CHECK_EQ(weight.dtype(), x.dtype());
  NormResult result = EmptyResult(kind, x);
  Device& device = x.device();
  NormArguments arguments = ArgumentsOf(kind, x, 1, result);
  arguments.eps = eps;
  arguments.scale = weight.raw_data();
  arguments.shift = DataOf(bias);
  device.kernels().norm.forward(device.stream(), arguments,
                                result.out.raw_data());
  return result;
}

Tensor NormAffineBackward(NormKind kind, const Tensor& x,
                          const NormResult& forward, const Tensor& weight,
                          const Tensor& grad_out, Tensor add_to_x,
                          const Tensor* grad_weight, const Tensor* grad_bias) {
  CHECK_EQ(x.shape(), grad_out.shape());
  Tensor sums;
  if (grad_weight != nullptr || grad_bias != nullptr) {
    sums = PartialSums(x, 1, x.num_elements() / x.dim(-1), 2, x.dim(-1));
  }
  const void* add = add_to_x.defined() ? add_to_x.raw_data() : nullptr;
  Tensor dx = GradientTarget(x, add_to_x);
  Device& device = x.device();
  NormArguments arguments = ArgumentsOf(kind, x, 1, forward);
  arguments.scale = weight.raw_data();
  device.kernels().norm.backward(device.stream(), arguments,
                                 grad_out.raw_data(), add, dx.raw_data(),
                                 sums.defined() ? sums.raw_data() : nullptr);
  const Tensor* targets[2] = {grad_weight, grad_bias};
  for (int which = 0; which < 2; ++which) {
    if (targets[which] == nullptr) continue;
    CHECK_EQ(targets[which]->dtype(), ComputeDType(x.dtype()));
    device.kernels().norm.sum_blocks(
        device.stream(), arguments, sums.raw_data(), which, 2,
        /*accumulate=*/true, targets[which]->raw_data());
  }
  return dx;
}

RopeTable MakeRopeTable(Device& device, std::span<const int64_t> axis_dims,
                        std::span<const double> positions, double theta,
                        DType compute_dtype) {
  const int64_t axes = static_cast<int64_t>(axis_dims.size());
  CHECK(axes > 0 && positions.size() % axes == 0);
  const int64_t tokens = static_cast<int64_t>(positions.size()) / axes;
  int64_t half = 0;
  for (const int64_t channels : axis_dims) {
    CHECK_EQ(channels % 2, 0);
    half += channels / 2;
  }
  const Shape shape{tokens, half};
  // A dry device has no use for values.
  std::vector<double> cosines, sines;
  for (int64_t token = 0; token < tokens && !device.dry(); ++token) {
    for (int64_t axis = 0; axis < axes; ++axis) {
      for (int64_t i = 0; i < axis_dims[axis] / 2; ++i) {
        const double frequency =
            std::pow(theta, -2.0 * static_cast<double>(i) /
                                static_cast<double>(axis_dims[axis]));
        const double angle = positions[token * axes + axis] * frequency;
        cosines.push_back(std::cos(angle));
        sines.push_back(std::sin(angle));
      }
    }
  }
  const auto table = [&](std::span<const double> values) {
    const auto upload = [&]<typename T>(T) {
      if (device.dry()) {
        return Tensor::Empty(device, shape, compute_dtype,
                             MemoryCategory::kParameters, "rope table");
      }
      return Upload<T>(device, shape,
                       std::vector<T>(values.begin(), values.end()),
                       MemoryCategory::kParameters, "rope table");
    };
    return compute_dtype == DType::kFloat64 ? upload(double{})
                                            : upload(float{});
  };
  return {table(cosines), table(sines)};
}

namespace {

HeadsLayout LayoutOf(const HeadsView& view) {
  return {view.offset, view.row_stride};
}

HeadsNormArguments HeadsArguments(const HeadsView& x, const Tensor* weight,
                                  const RopeTable* rope, const Tensor& rstd) {
  HeadsNormArguments arguments;
  arguments.dtype = x.tensor.dtype();
  arguments.batch = x.batch;
  arguments.tokens = x.tokens;
  arguments.heads = x.heads;
  arguments.head_dim = x.head_dim;
  arguments.x = x.tensor.raw_data();
  arguments.x_layout = LayoutOf(x);
  arguments.weight = DataOf(weight);
  if (rope != nullptr) {
    CHECK_EQ(x.head_dim % 2, 0) << "channels to rotate in pairs";
    CHECK_EQ(rope->cos.shape(), (Shape{x.tokens, x.head_dim / 2}));
    arguments.cos = rope->cos.raw_data();
    arguments.sin = rope->sin.raw_data();
  }
  if (rstd.defined()) arguments.rstd = rstd.raw_data();
  return arguments;
}

void CheckSameHeads(const HeadsView& a, const HeadsView& b) {
  CHECK(a.batch == b.batch && a.tokens == b.tokens && a.heads == b.heads &&
        a.head_dim == b.head_dim);
  CHECK_LE(a.head_dim, kMaxHeadDim) << "channels of a head";
  CHECK_EQ(a.tensor.dtype(), b.tensor.dtype());
}

}  // namespace

Tensor HeadsNormRopeForward(const HeadsView& x, const Tensor* weight,
                            const RopeTable* rope, double eps,
                            const HeadsView& out) {
  CheckSameHeads(x, out);
  Tensor rstd;
  if (weight != nullptr) {
    CHECK_EQ(weight->num_elements(), x.head_dim);
    rstd = Tensor::Empty(x.tensor.device(), {x.batch, x.tokens, x.heads},
                         ComputeDType(x.tensor.dtype()),
                         MemoryCategory::kActivations, "head norm rstd");
  }
  Device& device = x.tensor.device();
  HeadsNormArguments arguments = HeadsArguments(x, weight, rope, rstd);
  arguments.eps = eps;
  device.kernels().norm.heads_forward(device.stream(), arguments,
                                      out.tensor.raw_data(), LayoutOf(out));
  return rstd;
}

void HeadsNormRopeBackward(const HeadsView& x, const Tensor* weight,
                           const RopeTable* rope, const Tensor& rstd,
                           const HeadsView& grad_out, const HeadsView& dx,
                           const Tensor* grad_weight) {
  CheckSameHeads(x, grad_out);
  CheckSameHeads(x, dx);
  const int64_t rows = x.batch * x.tokens;
  Tensor sums;
  if (grad_weight != nullptr) {
    CHECK(weight != nullptr);
    sums = PartialSums(x.tensor, 1, rows, 1, x.head_dim);
  }
  Device& device = x.tensor.device();
  device.kernels().norm.heads_backward(
      device.stream(), HeadsArguments(x, weight, rope, rstd),
      grad_out.tensor.raw_data(), LayoutOf(grad_out), dx.tensor.raw_data(),
      LayoutOf(dx), sums.defined() ? sums.raw_data() : nullptr);
  if (grad_weight == nullptr) return;
  CHECK_EQ(grad_weight->dtype(), ComputeDType(x.tensor.dtype()));
  device.kernels().norm.sum_blocks(device.stream(),
                                   {.dtype = x.tensor.dtype(),
                                    .groups = 1,
                                    .rows_per_group = rows,
                                    .width = x.head_dim},
                                   sums.raw_data(), 0, 1, /*accumulate=*/true,
                                   grad_weight->raw_data());
}

}  // namespace trireme
