// Where a step's time goes on a rank: spans booked by their cause, in wall time
// for people and in cost for the simulator (step_clock.h).

#ifndef TRIREME_PARALLEL_EXECUTOR_STEP_LEDGER_H_
#define TRIREME_PARALLEL_EXECUTOR_STEP_LEDGER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "parallel/executor/step_clock.h"
#include "runtime/device/stream.h"
#include "runtime/device/stream_mark.h"

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
  // other stages to wait for. `processor_threads`: see StepClock. `stream`: the
  // compute stream of a device that works behind the host, whose clock is the
  // one that counts then, for costs, too; null: the host's.
  StepLedger(int chunks, bool pipeline, int processor_threads,
             Stream* stream = nullptr);

  // Runs f and books what it took, without what is booked while it runs.
  // `chunk`: whose cost it is, where a chunk's it is.
  template <typename F>
  void Measure(StepCause cause, int chunk, F&& f) {
    if (by_stream()) {
      const size_t entry = entries_.size();
      entries_.push_back({cause, chunk, within_, stream_->Mark()});
      const size_t around = std::exchange(within_, entry);
      f();
      entries_[entry].end = stream_->Mark();
      within_ = around;
      return;
    }
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
    if (by_stream() && within_ != kNothing) entries_[within_].inner += seconds;
    Add(cause, 0, {seconds, 0});
    booked_ += {seconds, 0};
  }

  // Whether times are those of a stream, which may be behind the host.
  bool by_stream() const { return stream_ != nullptr; }

  // Adds to StepTimes::sharding_wait, which is part of other times.
  void NoteShardingWait(double seconds) { times_.sharding_wait += seconds; }

  // The step is over: the sum of all. Blocks until the stream is done.
  StepTimes Finish();

 private:
  // Of a stream: what was measured, in the order of beginnings.
  struct Entry {
    StepCause cause;
    int chunk;
    size_t around;  // the entry that it lies within, or kNothing
    std::shared_ptr<StreamMark> begin;
    std::shared_ptr<StreamMark> end = nullptr;
    double inner = 0;  // what is booked within it
  };
  static constexpr size_t kNothing = SIZE_MAX;

  void Add(StepCause cause, int chunk, const StepClock::Span& span);
  void AddEntries();

  bool pipeline_;
  StepClock clock_;
  StepClock::Span start_;
  // Inside what is being measured.
  StepClock::Span booked_;
  StepTimes times_;

  Stream* stream_;  // null: none of these
  std::shared_ptr<StreamMark> begin_;
  std::vector<Entry> entries_;
  size_t within_ = kNothing;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_EXECUTOR_STEP_LEDGER_H_
