// Reverse-mode automatic differentiation over one (microbatch, chunk).
//
// Ops record a node: their inputs, the tensors that backward needs, and a
// closure. Backward runs the nodes in reverse and frees each node's saved
// tensors as soon as it has run. What a tape answers for:
//
//  - Zero-bubble schedules: the gradients of weights are queued as closures
//    owned by this tape. Backward(kDeferred) computes input gradients only;
//    RunWeightGradients() does the rest. Both orders give the same bits.
//  - Many microbatches in flight: one tape each, nothing shared but the
//    parameters' gradient accumulators.
//  - Recompute: Checkpoint() keeps a block's inputs only and records the block
//    again in backward. Random numbers are counter-based, so the second run is
//    bit for bit the first.
//  - Overlap: a callback tells when this tape has added its last contribution
//    to a parameter's gradient.
//  - Memory: saved tensors are listed and counted. Variables do not keep
//    values alive on the tape's behalf.
//
// Not thread-safe: one rank's executor drives one tape at a time.

#ifndef TRIREME_RUNTIME_AUTOGRAD_TAPE_H_
#define TRIREME_RUNTIME_AUTOGRAD_TAPE_H_

#include <functional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/autograd/parameter.h"
#include "runtime/device/tensor.h"

namespace trireme {

// A tensor, and its place on a tape if a gradient can flow into it.
class Variable {
 public:
  Variable() = default;
  // A constant.
  explicit Variable(Tensor value) : value_(std::move(value)) {}

  const Tensor& value() const { return value_; }
  bool defined() const { return value_.defined(); }
  bool requires_grad() const { return slot_ >= 0; }

  // How to make the value again, for ops that would otherwise keep it for
  // their backward; null: it must be kept.
  const std::function<Tensor()>& recipe() const { return recipe_; }
  void set_recipe(std::function<Tensor()> recipe) {
    recipe_ = std::move(recipe);
  }

 private:
  friend class Tape;
  Variable(Tensor value, int slot) : value_(std::move(value)), slot_(slot) {}

  Tensor value_;
  std::function<Tensor()> recipe_;
  int slot_ = -1;
};

class Tape {
 public:
  enum class Mode {
    kRecord,
    // Forward only: nothing is saved.
    kInference,
  };
  enum class WeightGradients { kImmediate, kDeferred };
  using GradientReady = std::function<void(Parameter&)>;

  // What a node's closure sees while backward runs it.
  class Gradients {
   public:
    // The gradient of output i. May be undefined where several outputs exist
    // and nothing flowed into this one.
    const Tensor& Output(int i = 0) const;
    // The same, moved out: with nobody else holding it, it may be overwritten.
    Tensor TakeOutput(int i = 0);
    // Tensor i of the node's saved list.
    const Tensor& Saved(int i) const;
    // False if input i is a constant: its gradient need not be computed.
    bool Needs(int input) const;
    // What other ops have contributed to input i so far, moved out, for ops
    // that add it in their own pass; undefined if nothing. The closure must
    // then Accumulate a sum that contains it.
    Tensor TakePending(int input);
    void Accumulate(int input, Tensor gradient);
    // Whether weight gradients are queued.
    bool deferred() const;
    // For ops whose pass over the input's gradient makes a parameter's too:
    // zeros for the pass to add to, undefined if the parameter is null or not
    // trainable. AddContribution then adds them to parameter.grad with the
    // other weight gradients: a microbatch's contributions come together under
    // every schedule, and sums have the same bits.
    Tensor NewContribution(const Parameter* parameter) const;
    void AddContribution(Parameter* parameter, const Tensor& contribution);
    // Queues (or runs) `compute`, which adds this use's contribution to
    // parameter.grad. It must own the tensors it reads. Skipped if the
    // parameter is not trainable. `prepare`, if given, starts what `compute`
    // then waits for (a collective): where gradients are queued it runs before
    // the one ahead of it that has a `prepare` too, so that it goes on behind.
    void AddWeightGradient(Parameter& parameter, std::function<void()> compute,
                           std::function<void()> prepare = nullptr);
    // Queues (or runs) what belongs to the weight gradients without being one.
    void AlongWeightGradients(std::function<void()> work);

   private:
    friend class Tape;
    Gradients(Tape& tape, int node) : tape_(tape), node_(node) {}
    Tape& tape_;
    int node_;
  };
  using BackwardFunction = std::function<void(Gradients&)>;
  using Block =
      std::function<std::vector<Variable>(Tape&, std::span<const Variable>)>;

  explicit Tape(Device& device, Mode mode = Mode::kRecord)
      : device_(device), mode_(mode) {}
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  Device& device() const { return device_; }
  bool recording() const { return mode_ == Mode::kRecord; }

  // A value whose gradient is wanted (a stage's input).
  Variable Leaf(Tensor value);

  // Records one op and returns its output. `saved` holds what backward reads.
  Variable Record(std::string_view name, std::vector<Variable> inputs,
                  std::vector<Parameter*> parameters, Tensor output,
                  std::vector<Tensor> saved, BackwardFunction backward);
  // The same with several outputs.
  std::vector<Variable> RecordMany(std::string_view name,
                                   std::vector<Variable> inputs,
                                   std::vector<Parameter*> parameters,
                                   std::vector<Tensor> outputs,
                                   std::vector<Tensor> saved,
                                   BackwardFunction backward);

  // Runs `block` without keeping anything but its inputs; backward runs it
  // again. The block is a pure function of its inputs and the parameters.
  std::vector<Variable> Checkpoint(std::string_view name,
                                   std::vector<Variable> inputs, Block block);

  // Runs all nodes in reverse from the given output gradients (undefined: the
  // op makes its own, as a loss does). Once per tape.
  void Backward(std::span<const Variable> outputs,
                std::span<const Tensor> gradients,
                WeightGradients weight_gradients);
  // Runs what Backward(kDeferred) queued, in order.
  void RunWeightGradients();

  // The gradient that arrived at a leaf, moved out; undefined if none did.
  Tensor TakeGradient(const Variable& leaf);

  // Called before parameter.grad is added to.
  void set_gradient_needed(GradientReady callback) {
    gradient_needed_ = std::move(callback);
  }
  // Called once per parameter after this tape's last contribution to it.
  void set_gradient_ready(GradientReady callback) {
    gradient_ready_ = std::move(callback);
  }

  // Bytes of the tensors that nodes hold for backward; shared storage counts
  // once per node. (name, bytes) per node, in order.
  std::vector<std::pair<std::string, int64_t>> SavedBytes() const;

 private:
  struct Node {
    std::string name;
    std::vector<int> inputs;  // slots, −1 for constants
    std::vector<int> outputs;
    std::vector<Tensor> saved;
    BackwardFunction backward;
  };
  struct WeightGradient {
    Parameter* parameter = nullptr;  // null: not a gradient
    std::function<void()> compute;
    std::function<void()> prepare = nullptr;
  };

  int NewSlot();
  void AddWeightGradient(Parameter& parameter, std::function<void()> compute,
                         std::function<void()> prepare);
  void AlongWeightGradients(std::function<void()> work);
  void QueueWeightGradient(WeightGradient gradient);
  void RunWeightGradient(const WeightGradient& gradient);
  void PrepareGradient(Parameter& parameter);
  void AccumulateInto(int slot, Tensor gradient);

  Device& device_;
  Mode mode_;
  // While a checkpointed block is replayed: the tape it belongs to, which owns
  // the weight gradients.
  Tape* parent_ = nullptr;
  std::vector<Node> nodes_;
  std::vector<Tensor> gradients_;  // by slot
  WeightGradients weight_gradients_ = WeightGradients::kImmediate;
  std::vector<WeightGradient> deferred_;
  // Contributions that are still to come, per parameter.
  std::unordered_map<Parameter*, int> uses_;
  bool count_uses_ = false;  // in kInference, for Checkpoint
  GradientReady gradient_needed_;
  GradientReady gradient_ready_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_AUTOGRAD_TAPE_H_
