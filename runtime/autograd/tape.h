// Reverse-mode automatic differentiation over one (microbatch, chunk).
//
// Ops record a node: their inputs, the tensors that backward needs, and a
// closure. Backward runs the nodes in reverse and frees each node's saved
// tensors as soon as it has run. What a tape answers for:
//
//  - Zero-bubble schedules: the gradients of weights are queued as closures
//    (weight_gradient_queue.h). Backward(kDeferred) computes input gradients
//    only; RunWeightGradients() does the rest. Both orders give the same bits.
//  - Many microbatches in flight: tapes of their own each, nothing shared but
//    the parameters' gradient accumulators.
//  - Losses: any op's scalar may be added to the objective, where it is made.
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
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/autograd/parameter.h"
#include "runtime/autograd/weight_gradient_queue.h"
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
  // The place on the tape alone: where a gradient goes in or comes out after
  // the value has gone on to another stage.
  Variable WithoutValue() const { return Variable(Tensor(), slot_); }

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

  // A scalar that was added to the objective.
  struct Loss {
    std::string name;
    Tensor value;  // one element
    double weight = 1;
  };
  // How many of something fall into each of several kinds: reported, and no
  // part of the objective.
  struct Counts {
    std::string name;
    Tensor values;  // [kinds], fp32 or fp64
  };

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
    // The gradient of the node's only output, a scalar, where all that flows
    // into it is what AddLoss seeds: a number that is known without reading
    // it back from the device. For ops whose kernel makes a loss's gradient.
    double LossGradient() const;
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
    // parameter.grad, as WeightGradientQueue::Add says. It must own the tensors
    // it reads. Skipped if the parameter is not trainable.
    void AddWeightGradient(Parameter& parameter, std::function<void()> compute,
                           std::function<void()> prepare = nullptr);
    // Of a `compute` that adds to both, which are trainable.
    void AddWeightGradients(Parameter& first, Parameter& second,
                            std::function<void()> compute,
                            std::function<void()> prepare = nullptr);

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
      : Tape(device, mode, std::make_unique<WeightGradientQueue>()) {}
  // Records a part of what `queue`'s microbatch does. The queue outlives it.
  Tape(Device& device, WeightGradientQueue& queue)
      : device_(device), mode_(Mode::kRecord), queue_(queue) {}
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

  // Adds weight·scalar (one element, fp32 or fp64) to the objective: backward
  // begins there too. It is reported by its name (empty: not at all), once also
  // under a checkpoint.
  void AddLoss(const Variable& scalar, double weight, std::string name);
  // A factor of the gradients of all losses that are added from now on, not of
  // the losses (loss_scaler.h).
  void set_loss_scale(double scale) { loss_scale_ = scale; }
  // What AddLoss added since the last call.
  std::vector<Loss> TakeLosses() { return std::move(losses_); }

  // Reports counts by their name, once also under a checkpoint.
  void Report(std::string name, Tensor values) {
    counts_.push_back({std::move(name), std::move(values)});
  }
  // What Report added since the last call.
  std::vector<Counts> TakeCounts() { return std::move(counts_); }

  // Runs all nodes in reverse from the losses and the given output gradients,
  // which are moved in (undefined: none flows into that output; what only such
  // outputs come from is left out). Once per tape. An op whose result nobody
  // uses is a programming error.
  void Backward(std::span<const Variable> outputs,
                std::vector<Tensor> gradients,
                WeightGradients weight_gradients);
  // Runs what Backward(kDeferred) queued, in order.
  void RunWeightGradients() { queue_.Run(); }

  // The gradient that arrived at a leaf, moved out; undefined if none did.
  Tensor TakeGradient(const Variable& leaf);

  WeightGradientQueue& queue() { return queue_; }

  // The tensors that nodes hold for backward and nobody else holds. Whoever
  // keeps one elsewhere moves it out and, before Backward, in again.
  std::vector<Tensor*> SoleSaved();

  // Bytes of the tensors that nodes hold for backward; shared storage counts
  // once per node. (name, bytes) per node, in order.
  std::vector<std::pair<std::string, int64_t>> SavedBytes() const;

 private:
  struct Node {
    std::string name;
    std::vector<int> inputs;  // slots, −1 for constants
    std::vector<int> outputs;
    std::vector<Parameter*> parameters;  // trainable ones
    std::vector<Tensor> saved;
    BackwardFunction backward;
    // Its backward has something to do though nothing flows into its outputs.
    bool adds_losses = false;
  };
  // Where a loss was added to the objective.
  struct LossSeed {
    int slot = 0;
    double gradient = 0;
    DType dtype = DType::kFloat32;
  };

  Tape(Device& device, Mode mode, std::unique_ptr<WeightGradientQueue> queue)
      : device_(device), mode_(mode), own_(std::move(queue)), queue_(*own_) {}

  int NewSlot();
  void AccumulateInto(int slot, Tensor gradient);
  // Runs the node's part of backward, and frees what it saved.
  void RunNode(int index);
  // Leaves it out: its parameters get nothing from it.
  void SkipNode(Node& node);

  Device& device_;
  Mode mode_;
  std::unique_ptr<WeightGradientQueue> own_;  // null: another's
  WeightGradientQueue& queue_;
  // Whether recorded ops announce their contributions to the queue: not where a
  // checkpointed block is replayed, whose first run did, and of inference only
  // that first run.
  bool expects_contributions_ = mode_ == Mode::kRecord;
  std::vector<Node> nodes_;
  std::vector<Tensor> gradients_;  // by slot
  double loss_scale_ = 1;
  std::vector<Loss> losses_;
  std::vector<Counts> counts_;
  std::vector<LossSeed> seeds_;
  bool adds_losses_ = false;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_AUTOGRAD_TAPE_H_
