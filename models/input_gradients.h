// The gradients that reach a model's inputs: for whoever compares a model with
// another one. Training asks for none, and inputs are constants then.

#ifndef TRIREME_MODELS_INPUT_GRADIENTS_H_
#define TRIREME_MODELS_INPUT_GRADIENTS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/grid/axis_state.h"
#include "parallel/grid/context.h"
#include "runtime/device/tensor.h"

namespace trireme {

class InputGradients {
 public:
  struct Part {
    std::string field;
    // Where the gradient begins: a sample of the local batch and, of tokens,
    // one of the sequence.
    int64_t first_sample = 0;
    int64_t first_token = 0;
    // Those of the input.
    AxisStates states;
    Tensor gradient;
  };

  // `input`, a constant, as a value whose gradient is kept once backward has
  // reached it. This outlives the backward.
  ShardedVariable Watch(ForwardContext& context, std::string_view field,
                        const ShardedVariable& input, int64_t first_sample,
                        int64_t first_token);

  const std::vector<Part>& parts() const { return parts_; }

 private:
  std::vector<Part> parts_;
};

// What a microbatch's inputs go through: as they are where nobody watches.
struct InputWatch {
  InputGradients* gradients = nullptr;
  int64_t first_sample = 0;

  ShardedVariable operator()(ForwardContext& context, std::string_view field,
                             const ShardedVariable& input,
                             int64_t first_token = 0) const {
    return gradients == nullptr ? input
                                : gradients->Watch(context, field, input,
                                                   first_sample, first_token);
  }
};

}  // namespace trireme

#endif  // TRIREME_MODELS_INPUT_GRADIENTS_H_
