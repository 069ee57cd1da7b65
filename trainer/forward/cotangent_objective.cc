#include "trainer/forward/cotangent_objective.h"

#include "parallel/layers/functional.h"
#include "runtime/ops/pointwise.h"
#include "trainer/forward/class_inputs.h"
#include "trainer/sampling/evaluation.h"

namespace trireme {

ModelInputs CotangentObjective::Prepare(const Batch& batch,
                                        std::string_view field,
                                        DType dtype) const {
  const auto typed = [dtype](const Tensor& x) {
    return x.dtype() == dtype ? x : Cast(x, dtype);
  };
  // The end of a model that reads no samples is given none on a dry device.
  const Tensor x = batch.Has(field) ? typed(batch[field]) : Tensor();
  Device& device = batch.fields.begin()->second.values.device();
  return {.x = x,
          .times = Times(batch, device, dtype),
          .target = batch.Has(kCotangentField)
                        ? typed(batch[kCotangentField])
                        : Tensor::Empty(device, output_.ShapeOf(batch.size()),
                                        dtype)};
}

Tensor CotangentObjective::Times(const Batch& batch, Device& device,
                                 DType /*dtype*/) const {
  return batch.Has(kTimeField)
             ? batch[kTimeField]
             : Tensor::Empty(device, {batch.size()}, DType::kFloat64);
}

Tensor CotangentObjective::Condition(const Batch& batch, std::string_view field,
                                     int32_t /*none*/) const {
  return batch[field];
}

void CotangentObjective::AddLosses(ForwardContext& context,
                                   const Batch& /*microbatch*/,
                                   const ShardedVariable& prediction,
                                   const Tensor& target,
                                   int64_t /*elements*/) const {
  ShardedVariable sum = {.variable = {}, .states = prediction.states};
  for (const Axis axis : kAllAxes) {
    if (sum.states[axis].kind == AxisState::Kind::kShard) {
      sum.states[axis] = AxisState::Partial();
    }
  }
  // Only its gradient is asked for, not the sum itself.
  const Tensor nothing = Tensor::Zeros(
      target.device(), {1},
      target.dtype() == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32);
  sum.variable = context.tape.Record(
      "product with the cotangent", {prediction.variable}, {}, nothing,
      {target}, [](Tape::Gradients& gradients) {
        gradients.Accumulate(
            0, Scale(gradients.Saved(0), gradients.LossGradient()));
      });
  AddLoss(context, sum, 1.0, "product with the cotangent");
}

}  // namespace trireme
