#include "moe/route_functions.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "runtime/ops/cast.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/normalization.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/reduction.h"
#include "runtime/ops/routing.h"

namespace trireme {
namespace {

using ExpertKind = MoeConfig::ExpertKind;

Tensor In(const Tensor& x, DType dtype) {
  return x.dtype() == dtype ? x : Cast(x, dtype);
}

constexpr double kMaxLogitScale = 100;
constexpr double kNormEps = 1e-12;

// [elements, 2]: each element and 0, whose softmax is the element's sigmoid and
// what is left of 1.
Tensor WithZeros(const Tensor& x) {
  const Tensor pairs =
      Tensor::Zeros(x.device(), {x.num_elements(), 2}, x.dtype(),
                    MemoryCategory::kActivations, "pairs");
  CopyStrided({.outer = x.num_elements(),
               .run = 1,
               .from = {.outer = 1},
               .to = {.outer = 2}},
              x, pairs);
  return pairs;
}

Tensor Column(const Tensor& pairs, int64_t column, const Shape& shape) {
  return CopySlice(pairs, 1, column, column + 1, "sigmoid").Reshape(shape);
}

// Rows √d long.
NormResult UnitRows(const Tensor& rows) {
  return NormModulateForward(NormKind::kRms,
                             rows.Reshape({1, rows.dim(0), rows.dim(1)}),
                             nullptr, nullptr, kNormEps);
}

double LogitScale(const Parameter& temperature, DType compute) {
  return std::min(2 * std::exp(ValueOf(In(temperature.value, compute))),
                  kMaxLogitScale);
}

}  // namespace

Variable RouterLogits(Tape& tape, const Variable& x, Parameter& weight) {
  const DType compute = ComputeDType(x.value().dtype());
  Tensor logits =
      MatMul(x.value(), weight.value, nullptr,
             {.transpose_b = true, .out_dtype = compute, .label = "router"});
  return tape.Record(
      "router", {x}, {&weight}, std::move(logits), {x.value()},
      [&weight, compute](Tape::Gradients& gradients) {
        const Tensor& x = gradients.Saved(0);
        const Tensor slope = gradients.TakeOutput();
        gradients.AddWeightGradient(weight, [&weight, x, slope, compute] {
          MatMulAccumulate(slope, In(x, compute), {.transpose_a = true},
                           weight.grad);
        });
        if (gradients.Needs(0)) {
          gradients.Accumulate(
              0, In(MatMul(slope, In(weight.value, compute)), x.dtype()));
        }
      });
}

Variable SelectColumns(Tape& tape, const Variable& x, const Tensor& indices) {
  return tape.Record(
      "select columns", {x}, {}, SelectColumns(x.value(), indices), {indices},
      [columns = x.value().dim(1)](Tape::Gradients& gradients) {
        gradients.Accumulate(0, PlaceColumns(gradients.TakeOutput(),
                                             gradients.Saved(0), columns));
      });
}

Variable LogSumExp(Tape& tape, const Variable& x) {
  return tape.Record("log-sum-exp", {x}, {}, LogSumExp(x.value()), {x.value()},
                     [](Tape::Gradients& gradients) {
                       gradients.Accumulate(
                           0, ScaleRows(SoftmaxForward(gradients.Saved(0)),
                                        gradients.TakeOutput()));
                     });
}

Tensor SigmoidOf(const Tensor& x) {
  return Column(SoftmaxForward(WithZeros(x)), 0, x.shape());
}

Variable Sigmoid(Tape& tape, const Variable& x) {
  const Tensor y = SigmoidOf(x.value());
  return tape.Record("sigmoid", {x}, {}, y, {y},
                     [](Tape::Gradients& gradients) {
                       const Tensor& y = gradients.Saved(0);
                       const Tensor once = Multiply(gradients.TakeOutput(), y);
                       AddInPlace(Multiply(once, y), once, -1);
                       gradients.Accumulate(0, once);
                     });
}

Variable LogSigmoid(Tape& tape, const Variable& x) {
  const Tensor pairs = WithZeros(x.value());
  const Tensor y = x.value().Clone();
  AddInPlace(LogSumExp(pairs).Reshape(y.shape()), y, -1);
  return tape.Record(
      "log sigmoid", {x}, {}, y, {x.value()}, [](Tape::Gradients& gradients) {
        const Tensor& x = gradients.Saved(0);
        gradients.Accumulate(
            0, Multiply(gradients.TakeOutput(),
                        Column(SoftmaxForward(WithZeros(x)), 1, x.shape())));
      });
}

Variable CosineLogits(Tape& tape, const Variable& x, Parameter& weight,
                      Parameter& temperature) {
  const DType compute = x.value().dtype();
  const auto width = static_cast<double>(x.value().dim(1));
  const double scale = LogitScale(temperature, compute);
  const Tensor logits = MatMul(
      x.value(),
      UnitRows(In(weight.value, compute)).out.Reshape(weight.value.shape()),
      nullptr, {.transpose_b = true, .label = "router"});
  ScaleInPlace(logits, scale / width);
  return tape.Record(
      "cosine router", {x}, {&weight, &temperature}, logits,
      {x.value(), logits},
      [&weight, &temperature, compute, width,
       scale](Tape::Gradients& gradients) {
        const Tensor x = gradients.Saved(0);
        const Tensor logits = gradients.Saved(1);
        const Tensor slope = gradients.TakeOutput();
        gradients.AddWeightGradient(temperature, [&temperature, logits, slope,
                                                  scale] {
          if (scale >= kMaxLogitScale) return;
          const Shape flat = {1, logits.num_elements()};
          AddInPlace(
              RowDots(slope.Reshape(flat), logits.Reshape(flat)).Reshape({1}),
              temperature.grad);
        });
        const Tensor of_cosines = Scale(slope, scale / width);
        gradients.AddWeightGradient(weight, [&weight, x, of_cosines, compute] {
          const Shape& shape = weight.value.shape();
          const Shape rows = {1, shape.dim(0), shape.dim(1)};
          const Tensor values = In(weight.value, compute);
          const Tensor of_units =
              MatMul(of_cosines, x, nullptr, {.transpose_a = true});
          AddInPlace(NormModulateBackward(NormKind::kRms, values.Reshape(rows),
                                          UnitRows(values), nullptr,
                                          of_units.Reshape(rows), Tensor())
                         .x.Reshape(shape),
                     weight.grad);
        });
        if (gradients.Needs(0)) {
          gradients.Accumulate(
              0, MatMul(of_cosines, UnitRows(In(weight.value, compute))
                                        .out.Reshape(weight.value.shape())));
        }
      });
}

Variable CountRoutes(Tape& tape, const Variable& x, Parameter& counted,
                     const Tensor& routes, double scale) {
  return tape.Record(
      "count routes", {x}, {&counted}, x.value(), {routes},
      [&counted, scale](Tape::Gradients& gradients) {
        gradients.AddWeightGradient(
            counted, [&counted, scale, routes = gradients.Saved(0)] {
              const int64_t experts = counted.grad.num_elements();
              const Tensor counts =
                  CountRoutes(routes, 1, experts, counted.grad.dtype())
                      .Reshape({experts});
              const double all = Sum(counts);
              AddInPlace(counts, counted.grad,
                         scale * static_cast<double>(experts));
              AddInPlace(Full(counts.device(), {experts}, counts.dtype(), all),
                         counted.grad, -scale);
            });
        gradients.Accumulate(0, gradients.TakeOutput());
      });
}

Variable CountSums(Tape& tape, const Variable& x, Parameter& counted,
                   const Tensor& gradient) {
  return tape.Record("count sums", {x}, {&counted}, x.value(), {gradient},
                     [&counted](Tape::Gradients& gradients) {
                       gradients.AddWeightGradient(
                           counted, [&counted, sums = gradients.Saved(0)] {
                             AddInPlace(sums, counted.grad);
                           });
                       gradients.Accumulate(0, gradients.TakeOutput());
                     });
}

Variable RoutedBiases(Tape& tape, const Variable& weights, const Tensor& routes,
                      Parameter& bias) {
  const int64_t experts = bias.value.dim(0);
  const DType compute = weights.value().dtype();
  // Routes to nowhere go to a first expert, whose bias is 0.
  const Tensor columns = AddOffset(routes, 1, "routes");
  const auto with_nowhere = [&bias, experts, compute] {
    const Tensor all =
        Tensor::Zeros(bias.value.device(), {experts + 1, bias.value.dim(1)},
                      compute, MemoryCategory::kWorkspace, "biases");
    CastInto(bias.value, all.Slice(1, experts + 1));
    return all;
  };
  const Tensor y = MatMul(PlaceColumns(weights.value(), columns, experts + 1),
                          with_nowhere(), nullptr, {.label = "biases"});
  return tape.Record(
      "routed biases", {weights}, {&bias}, In(y, bias.value.dtype()),
      {weights.value(), columns},
      [&bias, experts, compute, with_nowhere](Tape::Gradients& gradients) {
        const Tensor columns = gradients.Saved(1);
        const Tensor slope = In(gradients.TakeOutput(), compute);
        gradients.AddWeightGradient(bias, [&bias, experts, columns, slope,
                                           weights = gradients.Saved(0)] {
          const Tensor sums =
              MatMul(PlaceColumns(weights, columns, experts + 1), slope,
                     nullptr, {.transpose_a = true});
          AddInPlace(sums.Slice(1, experts + 1), bias.grad);
        });
        if (gradients.Needs(0)) {
          gradients.Accumulate(
              0, SelectColumns(MatMul(slope, with_nowhere(), nullptr,
                                      {.transpose_b = true}),
                               columns));
        }
      });
}

Variable KnownLoss(Tape& tape, const Variable& x, double value,
                   const Tensor& gradient) {
  return tape.Record(
      "known loss", {x}, {},
      Full(x.value().device(), {1}, x.value().dtype(), value), {gradient},
      [](Tape::Gradients& gradients) {
        gradients.Accumulate(
            0, Scale(gradients.Saved(0), ValueOf(gradients.TakeOutput())));
      });
}

Tensor Activated(ExpertKind kind, const Tensor& x) {
  return kind == ExpertKind::kSwiGlu
             ? SwiGluForward(x)
             : ActivationForward(Activation::kGeluTanh, x);
}

Tensor ActivationSlope(ExpertKind kind, const Tensor& x, const Tensor& dy) {
  return kind == ExpertKind::kSwiGlu
             ? SwiGluBackward(x, dy)
             : ActivationBackward(Activation::kGeluTanh, x, dy);
}

Variable WeightedActivation(Tape& tape, ExpertKind kind, const Variable& x,
                            const Variable& weights, Keep keep) {
  const auto compute = [kind, x = x.value(), weights = weights.value()] {
    return ScaleRows(Activated(kind, x), weights);
  };
  Variable y = tape.Record(
      "weighted activation", {x, weights}, {}, compute(),
      {x.value(), weights.value()}, [kind](Tape::Gradients& gradients) {
        const Tensor& x = gradients.Saved(0);
        const Tensor& weights = gradients.Saved(1);
        const Tensor dy = gradients.TakeOutput();
        if (gradients.Needs(1)) {
          gradients.Accumulate(1, RowDots(dy, Activated(kind, x)));
        }
        gradients.Accumulate(0,
                             ActivationSlope(kind, x, ScaleRows(dy, weights)));
      });
  if (keep == Keep::kRecipe) y.set_recipe(compute);
  return y;
}

}  // namespace trireme
