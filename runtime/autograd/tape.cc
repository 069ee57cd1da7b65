#include "runtime/autograd/tape.h"

#include "runtime/core/log.h"
#include "runtime/ops/pointwise.h"

namespace trireme {

const Tensor& Tape::Gradients::Output(int i) const {
  return tape_.gradients_[tape_.nodes_[node_].outputs[i]];
}

Tensor Tape::Gradients::TakeOutput(int i) {
  return std::move(tape_.gradients_[tape_.nodes_[node_].outputs[i]]);
}

const Tensor& Tape::Gradients::Saved(int i) const {
  return tape_.nodes_[node_].saved[i];
}

bool Tape::Gradients::Needs(int input) const {
  return tape_.nodes_[node_].inputs[input] >= 0;
}

Tensor Tape::Gradients::TakePending(int input) {
  const int slot = tape_.nodes_[node_].inputs[input];
  return slot < 0 ? Tensor() : std::move(tape_.gradients_[slot]);
}

void Tape::Gradients::Accumulate(int input, Tensor gradient) {
  const int slot = tape_.nodes_[node_].inputs[input];
  if (slot >= 0) tape_.AccumulateInto(slot, std::move(gradient));
}

bool Tape::Gradients::deferred() const {
  return tape_.weight_gradients_ == WeightGradients::kDeferred;
}

Tensor Tape::Gradients::NewContribution(const Parameter* parameter) const {
  if (parameter == nullptr || !parameter->trainable) return Tensor();
  const Tensor& value = parameter->value;
  return Tensor::Zeros(
      tape_.device(), value.shape(),
      value.dtype() == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32,
      MemoryCategory::kGradients, "contribution to a gradient");
}

void Tape::Gradients::AddContribution(Parameter* parameter,
                                      const Tensor& contribution) {
  if (!contribution.defined()) return;
  AddWeightGradient(*parameter, [parameter, contribution] {
    AddInPlace(contribution, parameter->grad);
  });
}

void Tape::Gradients::AddWeightGradient(Parameter& parameter,
                                        std::function<void()> compute,
                                        std::function<void()> prepare) {
  tape_.AddWeightGradient(parameter, std::move(compute), std::move(prepare));
}

void Tape::Gradients::AlongWeightGradients(std::function<void()> work) {
  tape_.AlongWeightGradients(std::move(work));
}

int Tape::NewSlot() {
  gradients_.emplace_back();
  return static_cast<int>(gradients_.size()) - 1;
}

Variable Tape::Leaf(Tensor value) {
  if (!recording()) return Variable(std::move(value));
  return Variable(std::move(value), NewSlot());
}

Variable Tape::Record(std::string_view name, std::vector<Variable> inputs,
                      std::vector<Parameter*> parameters, Tensor output,
                      std::vector<Tensor> saved, BackwardFunction backward) {
  std::vector<Tensor> outputs;
  outputs.push_back(std::move(output));
  return RecordMany(name, std::move(inputs), std::move(parameters),
                    std::move(outputs), std::move(saved), std::move(backward))
      .front();
}

std::vector<Variable> Tape::RecordMany(std::string_view name,
                                       std::vector<Variable> inputs,
                                       std::vector<Parameter*> parameters,
                                       std::vector<Tensor> outputs,
                                       std::vector<Tensor> saved,
                                       BackwardFunction backward) {
  bool needs_gradient = false;
  for (const Variable& input : inputs) {
    needs_gradient = needs_gradient || input.requires_grad();
  }
  if (recording() || count_uses_) {
    for (Parameter* parameter : parameters) {
      if (!parameter->trainable) continue;
      needs_gradient = true;
      if (parent_ == nullptr) ++uses_[parameter];
    }
  }
  std::vector<Variable> results;
  if (!recording() || !needs_gradient) {
    for (Tensor& output : outputs) results.emplace_back(std::move(output));
    return results;
  }
  Node node;
  node.name = name;
  for (const Variable& input : inputs) node.inputs.push_back(input.slot_);
  for (Tensor& output : outputs) {
    const int slot = NewSlot();
    node.outputs.push_back(slot);
    results.push_back(Variable(std::move(output), slot));
  }
  node.saved = std::move(saved);
  node.backward = std::move(backward);
  nodes_.push_back(std::move(node));
  return results;
}

std::vector<Variable> Tape::Checkpoint(std::string_view name,
                                       std::vector<Variable> inputs,
                                       Block block) {
  if (!recording()) return block(*this, inputs);
  Tape forward(device_, Mode::kInference);
  forward.count_uses_ = true;
  std::vector<Variable> constants;
  std::vector<Tensor> saved;
  for (const Variable& input : inputs) {
    constants.emplace_back(input.value());
    saved.push_back(input.value());
  }
  std::vector<Tensor> outputs;
  for (const Variable& output : block(forward, constants)) {
    outputs.push_back(output.value());
  }
  std::vector<Parameter*> parameters;
  for (const auto& [parameter, count] : forward.uses_) {
    parameters.insert(parameters.end(), count, parameter);
  }
  const int count = static_cast<int>(inputs.size());
  return RecordMany(
      name, std::move(inputs), std::move(parameters), std::move(outputs),
      std::move(saved),
      [this, block = std::move(block), count](Gradients& gradients) {
        Tape replay(device_, Mode::kRecord);
        replay.parent_ = parent_ == nullptr ? this : parent_;
        std::vector<Variable> leaves;
        for (int i = 0; i < count; ++i) {
          leaves.push_back(gradients.Needs(i) ? replay.Leaf(gradients.Saved(i))
                                              : Variable(gradients.Saved(i)));
        }
        const std::vector<Variable> results = block(replay, leaves);
        std::vector<Variable> reached;
        std::vector<Tensor> seeds;
        for (size_t i = 0; i < results.size(); ++i) {
          Tensor seed = gradients.TakeOutput(static_cast<int>(i));
          if (!seed.defined() || !results[i].requires_grad()) continue;
          reached.push_back(results[i]);
          seeds.push_back(std::move(seed));
        }
        replay.Backward(reached, seeds, weight_gradients_);
        for (int i = 0; i < count; ++i) {
          if (!gradients.Needs(i)) continue;
          Tensor gradient = replay.TakeGradient(leaves[i]);
          if (gradient.defined()) gradients.Accumulate(i, std::move(gradient));
        }
      });
}

void Tape::Backward(std::span<const Variable> outputs,
                    std::span<const Tensor> gradients,
                    WeightGradients weight_gradients) {
  CHECK(recording());
  CHECK_EQ(outputs.size(), gradients.size());
  weight_gradients_ = weight_gradients;
  std::vector<bool> seeded(gradients_.size(), false);
  for (size_t i = 0; i < outputs.size(); ++i) {
    CHECK(outputs[i].requires_grad()) << "output " << i << " is a constant";
    seeded[outputs[i].slot_] = true;
    if (gradients[i].defined()) {
      CHECK_EQ(gradients[i].shape(), outputs[i].value().shape());
      AccumulateInto(outputs[i].slot_, gradients[i]);
    }
  }
  for (int i = static_cast<int>(nodes_.size()) - 1; i >= 0; --i) {
    Node& node = nodes_[i];
    bool reached = false;
    for (int slot : node.outputs) {
      reached = reached || seeded[slot] || gradients_[slot].defined();
    }
    CHECK(reached) << "no gradient reaches the output of '" << node.name
                   << "': an op's result is unused";
    Gradients view(*this, i);
    node.backward(view);
    for (int slot : node.outputs) gradients_[slot] = Tensor();
    // Frees what was saved, and what the closure captured.
    node.saved.clear();
    node.backward = nullptr;
  }
  nodes_.clear();
}

void Tape::RunWeightGradients() {
  // One is prepared ahead of the one that is computed.
  size_t prepared = 0;
  const auto prepare_next = [&] {
    while (prepared < deferred_.size()) {
      const WeightGradient& next = deferred_[prepared++];
      if (!next.prepare) continue;
      next.prepare();
      return;
    }
  };
  prepare_next();
  for (WeightGradient& gradient : deferred_) {
    if (gradient.prepare) prepare_next();
    RunWeightGradient(gradient);
    gradient = {};
  }
  deferred_.clear();
}

Tensor Tape::TakeGradient(const Variable& leaf) {
  CHECK(leaf.requires_grad());
  return std::move(gradients_[leaf.slot_]);
}

std::vector<std::pair<std::string, int64_t>> Tape::SavedBytes() const {
  std::vector<std::pair<std::string, int64_t>> result;
  for (const Node& node : nodes_) {
    int64_t bytes = 0;
    for (const Tensor& tensor : node.saved) {
      if (tensor.defined()) bytes += tensor.bytes();
    }
    result.emplace_back(node.name, bytes);
  }
  return result;
}

void Tape::AddWeightGradient(Parameter& parameter,
                             std::function<void()> compute,
                             std::function<void()> prepare) {
  if (parent_ != nullptr) {
    parent_->AddWeightGradient(parameter, std::move(compute),
                               std::move(prepare));
    return;
  }
  if (!parameter.trainable) return;
  QueueWeightGradient({&parameter, std::move(compute), std::move(prepare)});
}

void Tape::AlongWeightGradients(std::function<void()> work) {
  if (parent_ != nullptr) {
    parent_->AlongWeightGradients(std::move(work));
    return;
  }
  QueueWeightGradient({nullptr, std::move(work)});
}

void Tape::QueueWeightGradient(WeightGradient gradient) {
  if (weight_gradients_ == WeightGradients::kDeferred) {
    deferred_.push_back(std::move(gradient));
  } else {
    if (gradient.prepare) gradient.prepare();
    RunWeightGradient(gradient);
  }
}

void Tape::PrepareGradient(Parameter& parameter) {
  if (parameter.trainable && gradient_needed_) gradient_needed_(parameter);
}

void Tape::RunWeightGradient(const WeightGradient& gradient) {
  if (gradient.parameter == nullptr) {
    gradient.compute();
    return;
  }
  PrepareGradient(*gradient.parameter);
  gradient.compute();
  const int left = --uses_.at(gradient.parameter);
  CHECK_GE(left, 0) << gradient.parameter->name;
  if (left == 0 && gradient_ready_) gradient_ready_(*gradient.parameter);
}

void Tape::AccumulateInto(int slot, Tensor gradient) {
  Tensor& target = gradients_[slot];
  if (!target.defined()) {
    target = std::move(gradient);
  } else if (target.unique()) {
    AddInPlace(gradient, target);
  } else if (gradient.unique()) {
    AddInPlace(target, gradient);
    target = std::move(gradient);
  } else {
    target = Add(target, gradient);
  }
}

}  // namespace trireme
