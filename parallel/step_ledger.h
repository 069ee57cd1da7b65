// Where a step's time goes on a rank: spans booked by their cause, in wall time
// for people and in cost for the simulator (step_clock.h).

#ifndef TRIREME_PARALLEL_STEP_LEDGER_H_
#define TRIREME_PARALLEL_STEP_LEDGER_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "parallel/step_clock.h"

namespace trireme {

// A chunk's instructions in a step, all microbatches together; with the
// collectives inside, without the wait for other stages. A whole backward
// counts as its input half.
struct ChunkCosts {
  double forward = 0;
  double backward_input = 0;
  double backward_weight = 0;
  double update = 0;
};

// What a step's instructions cost this rank, in seconds of the step's clock:
// what the simulator is given.
struct StepCosts {
  std::vector<ChunkCosts> chunks;
  // Before the first instruction: gradients are zeroed.
  double begin = 0;
  // Until the gradients are reduced, from the end of the last backward.
  double reduction = 0;
  double clip = 0;
  // Until all ranks are there to clip, in wall time: on the last of them what
  // the sum of the norm itself takes.
  double clip_wait = 0;
};

// Where a step's time went on this rank, in seconds. The step is forward,
// backward, optimizer, pipeline_wait, gradient_wait and copy_wait.
struct StepTimes {
  double step = 0;
  double forward = 0;
  double backward = 0;
  // Zeroing of gradients, their norm, and updates; of that the updates.
  double optimizer = 0;
  double update = 0;
  // Of the updates what computation waited for: all, but for those of a Program
  // with offload on a device that computes meanwhile.
  double update_wait = 0;
  // What updates read and wrote of the host's memory, in bytes.
  int64_t update_bytes = 0;
  // For other stages: for their messages, and for the slowest of them before
  // clipping and at the step's end. Bubble and exposed transfer.
  double pipeline_wait = 0;
  // For gradient reductions after the last backward; without a pipeline also
  // for the slowest rank before clipping and at the step's end.
  double gradient_wait = 0;
  // For gathers of parameters and for gradient reductions inside forward and
  // backward, whose times include it.
  double sharding_wait = 0;
  // For copies of blocks and gradients between device and host.
  double copy_wait = 0;
  StepCosts costs;
};

// What time is spent on.
enum class StepCause {
  kBegin,
  kForward,
  kBackwardInput,
  kBackwardWeight,
  // Messages between stages.
  kMessages,
  kReduceGradients,
  kGatherParameters,
  // Between device and host, of blocks that are offloaded.
  kCopies,
  kClip,
  // The slowest rank of the model, before gradients are clipped.
  kClipWait,
  // The slowest rank of the model, at the step's end.
  kEndWait,
  kUpdate,
};

class StepLedger {
 public:
  // A step of `chunks` chunks, from now on. `pipeline`: whether the model has
  // other stages to wait for. `processor_threads`: see StepClock.
  StepLedger(int chunks, bool pipeline, int processor_threads)
      : pipeline_(pipeline), clock_(processor_threads), start_(clock_.Now()) {
    times_.costs.chunks.resize(chunks);
  }

  // Runs f and books what it took, without what is booked while it runs.
  // `chunk`: whose cost it is, where a chunk's it is.
  template <typename F>
  void Measure(StepCause cause, int chunk, F&& f) {
    const StepClock::Span before = std::exchange(booked_, {});
    const StepClock::Span start = clock_.Now();
    f();
    const StepClock::Span spent = clock_.Now() - start;
    Add(cause, chunk, spent - booked_);
    booked_ = before;
    booked_ += spent;
  }

  // Books a wait inside what is being measured.
  void BookWait(StepCause cause, double seconds) {
    Add(cause, 0, {seconds, 0});
    booked_ += {seconds, 0};
  }

  // Adds to StepTimes::sharding_wait, which is part of other times.
  void NoteShardingWait(double seconds) { times_.sharding_wait += seconds; }

  // The step is over: the sum of all.
  StepTimes Finish();

 private:
  void Add(StepCause cause, int chunk, const StepClock::Span& span);

  bool pipeline_;
  StepClock clock_;
  StepClock::Span start_;
  // Inside what is being measured.
  StepClock::Span booked_;
  StepTimes times_;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_STEP_LEDGER_H_
