#include "models/input_gradients.h"

#include "runtime/autograd/tape.h"

namespace trireme {

ShardedVariable InputGradients::Watch(ForwardContext& context,
                                      std::string_view field,
                                      const ShardedVariable& input,
                                      int64_t first_sample,
                                      int64_t first_token) {
  if (!context.tape.recording()) return input;
  const Variable leaf = context.tape.Leaf(input.value());
  Part part = {.field = std::string(field),
               .first_sample = first_sample,
               .first_token = first_token,
               .states = input.states};
  const auto keep = [this, part](Tape::Gradients& gradients) {
    Part whole = part;
    whole.gradient = gradients.Output();
    // What a dry device has is sizes alone.
    if (!whole.gradient.device().dry()) parts_.push_back(std::move(whole));
  };
  return {
      context.tape.Record("watched input", {leaf}, {}, input.value(), {}, keep),
      input.states};
}

}  // namespace trireme
