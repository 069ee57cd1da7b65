#include "parallel/executor/chunk_pass.h"

#include <iterator>
#include <utility>

#include "parallel/executor/recompute.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {

std::vector<Tensor> ChunkPass::Forward(std::vector<Tensor> inputs,
                                       const StoredUnit& next) {
  EnterForward(std::move(inputs));
  ForwardUnits(0, chunk_.num_units(), next);
  return LeaveForward();
}

void ChunkPass::EnterForward(std::vector<Tensor> inputs) {
  const std::vector<BoundarySpec> specs = chunk_.Boundary(0);
  CHECK_EQ(inputs.size(), specs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    state_.push_back({Variable(std::move(inputs[i])), specs[i].states});
  }
}

void ChunkPass::ForwardUnits(int begin, int end, const StoredUnit& next) {
  CHECK_EQ(static_cast<size_t>(begin), units_.size());
  for (int unit = begin; unit < end; ++unit) {
    const StoredUnit ahead =
        unit + 1 < end ? StoredUnit{&store_, unit + 1} : next;
    store_.Bring(unit);
    FetchAhead(ahead);
    Unit& record = units_.emplace_back();
    record.tape = std::make_unique<Tape>(context_.device(), *queue_);
    record.tape->set_loss_scale(loss_scale_);
    for (ShardedVariable& tensor : state_) {
      // What another stage sent wants a gradient: it is not known here whether
      // anything in front of it does.
      tensor.variable = unit == 0 || tensor.variable.requires_grad()
                            ? record.tape->Leaf(tensor.value())
                            : Variable(tensor.value());
      record.inputs.push_back(tensor.variable.WithoutValue());
    }
    state_ = RunUnit(*record.tape, unit, std::move(state_));
    CheckBoundary(unit + 1, state_);
    for (const ShardedVariable& tensor : state_) {
      record.outputs.push_back(tensor.variable.WithoutValue());
    }
    std::vector<Tape::Loss> losses = record.tape->TakeLosses();
    if (observer_) ShowForward(unit, losses);
    std::move(losses.begin(), losses.end(), std::back_inserter(losses_));
    std::vector<Tape::Counts> counts = record.tape->TakeCounts();
    std::move(counts.begin(), counts.end(), std::back_inserter(counts_));
    if (emulated_ != nullptr) {
      emulated_->Elapse(emulated_->Unit(chunk_index_, unit).forward);
    }
    DropAfter(unit, ahead);
  }
}

std::vector<Tensor> ChunkPass::LeaveForward() {
  std::vector<Tensor> outputs;
  for (const ShardedVariable& tensor : state_) {
    outputs.push_back(tensor.value());
  }
  state_.clear();
  return outputs;
}

std::vector<ShardedVariable> ChunkPass::RunUnit(
    Tape& tape, int unit, std::vector<ShardedVariable> state) {
  ForwardContext context{tape, context_};
  if (!chunk_.Recomputes(unit)) {
    return chunk_.RunUnit(context, microbatch_, unit, std::move(state));
  }
  return Recompute(context, "unit", state,
                   [this, unit](ForwardContext& inner,
                                const std::vector<ShardedVariable>& inputs) {
                     return chunk_.RunUnit(inner, microbatch_, unit, inputs);
                   });
}

void ChunkPass::CheckBoundary(int unit,
                              const std::vector<ShardedVariable>& state) {
  const std::vector<BoundarySpec> specs = chunk_.Boundary(unit);
  CHECK_EQ(state.size(), specs.size()) << "boundary before unit " << unit;
  for (size_t i = 0; i < specs.size(); ++i) {
    const Tensor& value = state[i].value();
    if (value.shape() == specs[i].shape && value.dtype() == specs[i].dtype &&
        state[i].states == specs[i].states) {
      continue;
    }
    context_.Refuse(FailedPrecondition(
        "tensor {} before unit {} is {} of shape {} ({}); expected {} of shape "
        "{} ({})",
        i, unit, DTypeName(value.dtype()), value.shape().ToString(),
        state[i].states.ToString(), DTypeName(specs[i].dtype),
        specs[i].shape.ToString(), specs[i].states.ToString()));
  }
}

std::vector<Tensor> ChunkPass::Backward(std::vector<Tensor> gradients,
                                        Tape::WeightGradients weight_gradients,
                                        const StoredUnit& next) {
  EnterBackward(std::move(gradients), weight_gradients);
  BackwardUnits(0, static_cast<int>(units_.size()), next);
  return LeaveBackward();
}

void ChunkPass::EnterBackward(std::vector<Tensor> gradients,
                              Tape::WeightGradients weight_gradients) {
  CHECK(!units_.empty()) << "a backward without its forward";
  gradients_ = std::move(gradients);
  weight_gradients_ = weight_gradients;
  queue_->set_deferred(weight_gradients == Tape::WeightGradients::kDeferred);
}

void ChunkPass::BackwardUnits(int begin, int end, const StoredUnit& next) {
  CHECK_EQ(static_cast<size_t>(end), units_.size());
  for (int unit = end - 1; unit >= begin; --unit) {
    const StoredUnit ahead =
        unit > begin ? StoredUnit{&store_, unit - 1} : next;
    store_.Bring(unit);
    store_.PrepareGradients(unit);
    FetchAhead(ahead);
    if (emulated_ != nullptr) {
      const UnitSeconds seconds = emulated_->Unit(chunk_index_, unit);
      emulated_->Elapse(seconds.backward_input);
      queue_->AddWork([compute = emulated_, seconds] {
        compute->Elapse(seconds.backward_weight);
      });
    }
    Unit& record = units_.back();
    CHECK(record.bring_back == nullptr)
        << "the input of unit " << unit << " is away";
    CHECK_EQ(gradients_.size(), record.outputs.size());
    std::vector<Variable> reached;
    std::vector<Tensor> seeds;
    for (size_t i = 0; i < gradients_.size(); ++i) {
      if (!record.outputs[i].requires_grad()) continue;
      reached.push_back(record.outputs[i]);
      seeds.push_back(std::move(gradients_[i]));
    }
    gradients_.clear();
    record.tape->Backward(reached, std::move(seeds), weight_gradients_);
    for (const Variable& input : record.inputs) {
      gradients_.push_back(
          input.requires_grad() ? record.tape->TakeGradient(input) : Tensor());
    }
    units_.pop_back();
    if (observer_) ShowBackward(unit);
    DropAfter(unit, ahead);
  }
}

void ChunkPass::SaveInputs(int begin, int end) {
  for (int unit = begin; unit < end; ++unit) {
    if (!chunk_.Recomputes(unit)) continue;
    Unit& record = units_[unit];
    record.away = record.tape->SoleSaved();
    std::vector<Tensor> inputs;
    for (Tensor* const input : record.away) inputs.push_back(std::move(*input));
    record.bring_back = store_.TakeAway(std::move(inputs));
  }
}

void ChunkPass::LoadInputs(int begin, int end) {
  for (int unit = begin; unit < end; ++unit) {
    if (!chunk_.Recomputes(unit)) continue;
    Unit& record = units_[unit];
    std::vector<Tensor> inputs = std::exchange(record.bring_back, nullptr)();
    for (size_t i = 0; i < inputs.size(); ++i) {
      *record.away[i] = std::move(inputs[i]);
    }
    record.away.clear();
  }
}

std::vector<Tensor> ChunkPass::LeaveBackward() {
  const std::vector<BoundarySpec> specs = chunk_.Boundary(0);
  for (size_t i = 0; i < gradients_.size(); ++i) {
    if (gradients_[i].defined()) continue;
    gradients_[i] =
        Tensor::Zeros(context_.device(), specs[i].shape, specs[i].dtype);
  }
  return std::exchange(gradients_, {});
}

std::vector<Tensor> EmptyBoundary(Device& device,
                                  const std::vector<BoundarySpec>& specs) {
  std::vector<Tensor> tensors;
  for (const BoundarySpec& spec : specs) {
    tensors.push_back(Tensor::Empty(device, spec.shape, spec.dtype));
  }
  return tensors;
}

void ChunkPass::ShowForward(int unit,
                            std::span<const Tape::Loss> losses) const {
  UnitResult result = {.chunk = chunk_index_,
                       .unit = unit,
                       .microbatch = microbatch_,
                       .backward = false,
                       .tensors = {},
                       .losses = losses};
  for (const ShardedVariable& tensor : state_) {
    result.tensors.push_back(tensor.value());
  }
  observer_(result);
}

void ChunkPass::ShowBackward(int unit) const {
  observer_({.chunk = chunk_index_,
             .unit = unit,
             .microbatch = microbatch_,
             .backward = true,
             .tensors = gradients_,
             .losses = {}});
}

void ChunkPass::FetchAhead(const StoredUnit& next) {
  if (next.store != nullptr) next.store->Fetch(next.unit);
}

void ChunkPass::DropAfter(int unit, const StoredUnit& next) {
  if (next != StoredUnit{&store_, unit}) store_.Drop(unit);
}

}  // namespace trireme
