// One microbatch's way through a chunk and back: the loop over its units, in
// one go or in runs of them.
//
// Each unit has a tape of its own, whose leaves are what came from the unit
// before; backward hands the gradients of those leaves to that unit's tape.
// Between forward and backward a pass holds tapes and places on them: a tensor
// that crosses a boundary stays only where an op saved it.

#ifndef TRIREME_PARALLEL_EXECUTOR_CHUNK_PASS_H_
#define TRIREME_PARALLEL_EXECUTOR_CHUNK_PASS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "parallel/executor/chunk.h"
#include "parallel/executor/emulated_compute.h"
#include "parallel/grid/context.h"
#include "parallel/sharding/unit_store.h"
#include "runtime/autograd/tape.h"

namespace trireme {

// What a unit of a chunk made of a microbatch: in forward what it hands on and
// what it added to the objective, in backward the gradients of what it was
// given (undefined: there is none).
struct UnitResult {
  int chunk = 0;
  int unit = 0;
  int64_t microbatch = 0;
  bool backward = false;
  std::vector<Tensor> tensors;
  std::span<const Tape::Loss> losses;
};
using UnitObserver = std::function<void(const UnitResult&)>;

class ChunkPass {
 public:
  // All outlive the pass.
  ChunkPass(ParallelContext& context, Chunk& chunk, UnitStore& store,
            int64_t microbatch)
      : context_(context),
        chunk_(chunk),
        store_(store),
        microbatch_(microbatch) {}

  // Where the gradients of the parameters go; see its callbacks.
  WeightGradientQueue& queue() { return *queue_; }
  // Before Forward: a factor of all gradients, not of the losses.
  void set_loss_scale(double scale) { loss_scale_ = scale; }
  // Before Forward: is shown what the units of the chunk make.
  void set_observer(UnitObserver observer, int chunk) {
    observer_ = std::move(observer);
    chunk_index_ = chunk;
  }
  // Before Forward: units take these times (emulated_compute.h).
  void set_emulated_compute(EmulatedCompute* compute, int chunk) {
    emulated_ = compute;
    chunk_index_ = chunk;
  }

  // Runs all units on `inputs`, the chunk's Boundary(0), and returns its last
  // Boundary. While the last unit runs, `next` is fetched: what runs after it;
  // if that is the last unit itself, it stays.
  std::vector<Tensor> Forward(std::vector<Tensor> inputs,
                              const StoredUnit& next = {});
  // From the gradients of what Forward returned (undefined: none) to those of
  // its inputs, all of them defined.
  std::vector<Tensor> Backward(std::vector<Tensor> gradients,
                               Tape::WeightGradients weight_gradients,
                               const StoredUnit& next = {});

  // The same in parts: Enter with what Forward or Backward takes, units
  // [begin, end) from where the last call ended, Leave with what it returns.
  void EnterForward(std::vector<Tensor> inputs);
  void ForwardUnits(int begin, int end, const StoredUnit& next = {});
  std::vector<Tensor> LeaveForward();
  void EnterBackward(std::vector<Tensor> gradients,
                     Tape::WeightGradients weight_gradients);
  void BackwardUnits(int begin, int end, const StoredUnit& next = {});
  std::vector<Tensor> LeaveBackward();
  // Of units [begin, end) between their forward and their backward, where they
  // recompute: what they alone keep of their inputs is taken off the device,
  // and brought back (UnitStore::TakeAway).
  void SaveInputs(int begin, int end);
  void LoadInputs(int begin, int end);
  // What Backward(kDeferred) left.
  void BackwardWeight() { queue_->Run(); }

  // What units added to the objective in Forward.
  const std::vector<Tape::Loss>& losses() const { return losses_; }
  const std::vector<Tape::Counts>& counts() const { return counts_; }

 private:
  struct Unit {
    std::unique_ptr<Tape> tape;
    // Places of what came in and went out; constants have none.
    std::vector<Variable> inputs;
    std::vector<Variable> outputs;
    // On the tape, where what is away belongs; and who brings it back.
    std::vector<Tensor*> away;
    UnitStore::BringBack bring_back;
  };

  std::vector<ShardedVariable> RunUnit(Tape& tape, int unit,
                                       std::vector<ShardedVariable> state);
  // Refuses the model unless `state` is what Boundary(unit) says.
  void CheckBoundary(int unit, const std::vector<ShardedVariable>& state);
  void ShowForward(int unit, std::span<const Tape::Loss> losses) const;
  void ShowBackward(int unit) const;
  void FetchAhead(const StoredUnit& next);
  void DropAfter(int unit, const StoredUnit& next);

  ParallelContext& context_;
  Chunk& chunk_;
  UnitStore& store_;
  int64_t microbatch_;
  // Apart, so that callbacks and tapes find it where a pass is moved to.
  std::unique_ptr<WeightGradientQueue> queue_ =
      std::make_unique<WeightGradientQueue>();
  double loss_scale_ = 1;
  UnitObserver observer_;
  EmulatedCompute* emulated_ = nullptr;
  int chunk_index_ = 0;
  std::vector<Unit> units_;
  // Between two units: what one returned, or the gradients that it gave.
  std::vector<ShardedVariable> state_;
  std::vector<Tensor> gradients_;
  Tape::WeightGradients weight_gradients_ = Tape::WeightGradients::kImmediate;
  std::vector<Tape::Loss> losses_;
  std::vector<Tape::Counts> counts_;
};

// Tensors of the specs, uninitialised: what a pass is given that only counts or
// times.
std::vector<Tensor> EmptyBoundary(Device& device,
                                  const std::vector<BoundarySpec>& specs);

}  // namespace trireme

#endif  // TRIREME_PARALLEL_EXECUTOR_CHUNK_PASS_H_
