#include "trainer/sampling/evaluation.h"

#include "parallel/grid/transitions.h"
#include "runtime/ops/pointwise.h"

namespace trireme {

ModelInputs Evaluation::Prepare(const Batch& batch, std::string_view field,
                                DType dtype) const {
  const Tensor& samples = batch[field];
  return {.x = samples.dtype() == dtype ? samples : Cast(samples, dtype),
          .times = batch.Has(kTimeField) ? batch[kTimeField] : Tensor()};
}

Tensor Evaluation::Condition(const Batch& batch, std::string_view field,
                             int32_t /*none*/) const {
  return batch[field];
}

void Evaluation::AddLosses(ForwardContext& context, const Batch& /*microbatch*/,
                           const ShardedVariable& prediction,
                           const Tensor& /*target*/,
                           int64_t /*elements*/) const {
  // Tokens are cut over cp, and each part of them over tp.
  ShardedVariable whole = prediction;
  for (const Axis axis : {Axis::kTensor, Axis::kContext}) {
    if (whole.states[axis].kind != AxisState::Kind::kShard) continue;
    whole = Transition(context, whole, axis, AxisState::Invariant());
  }
  prediction_ = whole.value();
}

}  // namespace trireme
