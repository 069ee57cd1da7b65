#include "moe/route_functions.h"

#include <utility>

#include "runtime/ops/grouped_matmul.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/reduction.h"
#include "runtime/ops/routing.h"

namespace trireme {
namespace {

using ExpertKind = MoeConfig::ExpertKind;

Tensor In(const Tensor& x, DType dtype) {
  return x.dtype() == dtype ? x : Cast(x, dtype);
}

// [groups, out, in], whatever parts `out` has.
Tensor AsMatrices(const Tensor& weight) {
  return weight.Reshape({weight.dim(0), -1, weight.dim(-1)});
}

Tensor Activated(ExpertKind kind, const Tensor& x) {
  return kind == ExpertKind::kSwiGlu
             ? SwiGluForward(x)
             : ActivationForward(Activation::kGeluTanh, x);
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

Variable GroupedLinear(Tape& tape, const Variable& x, Parameter& weight,
                       const std::vector<int64_t>& counts) {
  Tensor y = GroupedMatMul(x.value(), AsMatrices(weight.value), counts,
                           /*transpose=*/true);
  return tape.Record(
      "grouped linear", {x}, {&weight}, std::move(y),
      {x.recipe() ? Tensor() : x.value()},
      [&weight, counts, recipe = x.recipe()](Tape::Gradients& gradients) {
        const Tensor dy = gradients.TakeOutput();
        gradients.AddWeightGradient(
            weight, [&weight, counts, recipe, x = gradients.Saved(0), dy] {
              GroupedMatMulAccumulate(dy, recipe ? recipe() : x, counts,
                                      AsMatrices(weight.grad));
            });
        if (gradients.Needs(0)) {
          gradients.Accumulate(0, GroupedMatMul(dy, AsMatrices(weight.value),
                                                counts, /*transpose=*/false));
        }
      });
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
        const Tensor slope = ScaleRows(dy, weights);
        gradients.Accumulate(
            0, kind == ExpertKind::kSwiGlu
                   ? SwiGluBackward(x, slope)
                   : ActivationBackward(Activation::kGeluTanh, x, slope));
      });
  if (keep == Keep::kRecipe) y.set_recipe(compute);
  return y;
}

}  // namespace trireme
