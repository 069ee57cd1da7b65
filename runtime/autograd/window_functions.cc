#include "runtime/autograd/window_functions.h"

#include <utility>

#include "runtime/ops/pointwise.h"

namespace trireme {

Variable WindowAttention(Tape& tape, const WindowLayout& layout,
                         const Variable& qkv, Parameter& log_scales,
                         const Variable& biases) {
  return tape.Record(
      "window attention", {qkv, biases}, {&log_scales},
      WindowAttentionForward(layout, qkv.value(), log_scales.value,
                             biases.value()),
      {qkv.value(), biases.value()},
      [layout, &log_scales](Tape::Gradients& gradients) {
        WindowAttentionBackwardResult result = WindowAttentionBackward(
            layout, gradients.Saved(0), log_scales.value, gradients.Saved(1),
            gradients.TakeOutput());
        const Tensor contribution = gradients.NewContribution(&log_scales);
        if (contribution.defined()) {
          AddInPlace(result.log_scales, contribution);
        }
        gradients.AddContribution(&log_scales, contribution);
        gradients.Accumulate(0, std::move(result.qkv));
        gradients.Accumulate(1, std::move(result.biases));
      });
}

}  // namespace trireme
