#include "runtime/autograd/tape.h"

#include "runtime/core/log.h"
#include "runtime/ops/copy.h"
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

double Tape::Gradients::LossGradient() const {
  const Node& node = tape_.nodes_[node_];
  CHECK_EQ(node.outputs.size(), size_t{1});
  double gradient = 0;
  bool found = false;
  for (const LossSeed& seed : tape_.seeds_) {
    if (seed.slot != node.outputs[0]) continue;
    gradient += seed.gradient;
    found = true;
  }
  CHECK(found) << "'" << node.name << "' was not added to the objective";
  return gradient;
}

bool Tape::Gradients::deferred() const { return tape_.queue_.deferred(); }

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
  if (!parameter.trainable) return;
  tape_.queue_.Add(parameter, std::move(compute), std::move(prepare));
}

void Tape::Gradients::AddWeightGradients(Parameter& first, Parameter& second,
                                         std::function<void()> compute,
                                         std::function<void()> prepare) {
  tape_.queue_.AddBoth(first, second, std::move(compute), std::move(prepare));
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
  std::erase_if(parameters, [](const Parameter* parameter) {
    return !parameter->trainable;
  });
  bool needs_gradient = !parameters.empty();
  for (const Variable& input : inputs) {
    needs_gradient = needs_gradient || input.requires_grad();
  }
  if (expects_contributions_) {
    for (Parameter* parameter : parameters) queue_.Expect(*parameter);
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
  node.parameters = std::move(parameters);
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
  forward.expects_contributions_ = true;
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
  // The replay's are not taken: a loss is reported once.
  for (Loss& loss : forward.losses_) losses_.push_back(std::move(loss));
  for (Counts& counts : forward.counts_) counts_.push_back(std::move(counts));
  std::vector<Parameter*> parameters;
  for (const auto& [parameter, count] : forward.queue_.expected()) {
    parameters.insert(parameters.end(), count, parameter);
  }
  const int count = static_cast<int>(inputs.size());
  const size_t before = nodes_.size();
  std::vector<Variable> results = RecordMany(
      name, std::move(inputs), std::move(parameters), std::move(outputs),
      std::move(saved),
      [this, block = std::move(block), count](Gradients& gradients) {
        Tape replay(device_, queue_);
        replay.expects_contributions_ = false;
        replay.loss_scale_ = loss_scale_;
        std::vector<Variable> leaves;
        for (int i = 0; i < count; ++i) {
          leaves.push_back(gradients.Needs(i) ? replay.Leaf(gradients.Saved(i))
                                              : Variable(gradients.Saved(i)));
        }
        std::vector<Variable> reached;
        std::vector<Tensor> seeds;
        int output = 0;
        for (const Variable& result : block(replay, leaves)) {
          Tensor seed = gradients.TakeOutput(output++);
          if (!result.requires_grad()) continue;
          reached.push_back(result.WithoutValue());
          seeds.push_back(std::move(seed));
        }
        replay.Backward(reached, std::move(seeds),
                        queue_.deferred() ? WeightGradients::kDeferred
                                          : WeightGradients::kImmediate);
        for (int i = 0; i < count; ++i) {
          if (!gradients.Needs(i)) continue;
          Tensor gradient = replay.TakeGradient(leaves[i]);
          if (gradient.defined()) gradients.Accumulate(i, std::move(gradient));
        }
      });
  if (forward.adds_losses_) {
    adds_losses_ = true;
    if (nodes_.size() > before) nodes_.back().adds_losses = true;
  }
  return results;
}

void Tape::AddLoss(const Variable& scalar, double weight, std::string name) {
  CHECK_EQ(scalar.value().num_elements(), 1) << name;
  adds_losses_ = true;
  if (!name.empty()) {
    losses_.push_back({std::move(name), scalar.value(), weight});
  }
  if (!scalar.requires_grad()) return;
  seeds_.push_back(
      {scalar.slot_, weight * loss_scale_, scalar.value().dtype()});
}

void Tape::Backward(std::span<const Variable> outputs,
                    std::vector<Tensor> gradients,
                    WeightGradients weight_gradients) {
  CHECK_EQ(outputs.size(), gradients.size());
  queue_.set_deferred(weight_gradients == WeightGradients::kDeferred);
  // Outputs that get no gradient, and what only they come from.
  std::vector<bool> unwanted(gradients_.size(), false);
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Variable& output = outputs[i];
    CHECK(output.requires_grad()) << "output " << i << " is a constant";
    if (!gradients[i].defined()) {
      unwanted[output.slot_] = true;
      continue;
    }
    if (output.defined()) {
      CHECK_EQ(gradients[i].shape(), output.value().shape());
    }
    AccumulateInto(output.slot_, std::move(gradients[i]));
  }
  for (const LossSeed& seed : seeds_) {
    AccumulateInto(seed.slot, Full(device_, {1}, seed.dtype, seed.gradient));
  }
  for (int i = static_cast<int>(nodes_.size()) - 1; i >= 0; --i) {
    Node& node = nodes_[i];
    bool reached = node.adds_losses;
    bool excused = true;
    for (int slot : node.outputs) {
      reached = reached || gradients_[slot].defined();
      excused = excused && unwanted[slot];
    }
    if (reached) {
      RunNode(i);
      continue;
    }
    CHECK(excused) << "no gradient reaches the output of '" << node.name
                   << "': an op's result is unused";
    for (int slot : node.inputs) {
      if (slot >= 0) unwanted[slot] = true;
    }
    SkipNode(node);
  }
  nodes_.clear();
  seeds_.clear();
}

void Tape::RunNode(int index) {
  Node& node = nodes_[index];
  Gradients view(*this, index);
  node.backward(view);
  for (int slot : node.outputs) gradients_[slot] = Tensor();
  // Frees what was saved, and what the closure captured.
  node.saved.clear();
  node.backward = nullptr;
}

void Tape::SkipNode(Node& node) {
  for (Parameter* parameter : node.parameters) {
    queue_.Add(*parameter, [] {});
  }
  node.saved.clear();
  node.backward = nullptr;
}

Tensor Tape::TakeGradient(const Variable& leaf) {
  CHECK(leaf.requires_grad());
  return std::move(gradients_[leaf.slot_]);
}

std::vector<Tensor*> Tape::SoleSaved() {
  std::vector<Tensor*> result;
  for (Node& node : nodes_) {
    for (Tensor& tensor : node.saved) {
      if (tensor.unique()) result.push_back(&tensor);
    }
  }
  return result;
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
