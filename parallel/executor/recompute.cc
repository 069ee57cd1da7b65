#include "parallel/executor/recompute.h"

#include <memory>
#include <span>
#include <utility>

namespace trireme {

std::vector<ShardedVariable> Recompute(
    ForwardContext& context, std::string_view name,
    const std::vector<ShardedVariable>& inputs, ShardedBlock block) {
  std::vector<Variable> variables;
  std::vector<AxisStates> input_states;
  for (const ShardedVariable& input : inputs) {
    variables.push_back(input.variable);
    input_states.push_back(input.states);
  }
  // The states of the outputs are known after the first run, which Checkpoint
  // makes before it returns.
  auto output_states = std::make_shared<std::vector<AxisStates>>();
  std::vector<Variable> outputs = context.tape.Checkpoint(
      name, std::move(variables),
      [block = std::move(block), input_states, output_states,
       &parallel = context.parallel](Tape& tape,
                                     std::span<const Variable> values) {
        ForwardContext inner{tape, parallel};
        std::vector<ShardedVariable> sharded;
        for (size_t i = 0; i < values.size(); ++i) {
          sharded.push_back({values[i], input_states[i]});
        }
        std::vector<Variable> results;
        output_states->clear();
        for (ShardedVariable& result : block(inner, sharded)) {
          output_states->push_back(result.states);
          results.push_back(std::move(result.variable));
        }
        return results;
      });
  std::vector<ShardedVariable> result;
  for (size_t i = 0; i < outputs.size(); ++i) {
    result.push_back({std::move(outputs[i]), (*output_states)[i]});
  }
  return result;
}

}  // namespace trireme
