#include "parallel/executor/step_ledger.h"

#include <algorithm>

namespace trireme {

StepLedger::StepLedger(int chunks, bool pipeline, int processor_threads,
                       Stream* stream)
    : pipeline_(pipeline),
      clock_(processor_threads),
      start_(clock_.Now()),
      stream_(stream) {
  times_.costs.chunks.resize(chunks);
  if (by_stream()) begin_ = stream_->Mark();
}

void StepLedger::Add(StepCause cause, int chunk, const StepClock::Span& span) {
  StepCosts& costs = times_.costs;
  double& wait_for_all =
      pipeline_ ? times_.pipeline_wait : times_.gradient_wait;
  switch (cause) {
    case StepCause::kBegin:
      times_.optimizer += span.wall;
      costs.begin += span.cost;
      break;
    case StepCause::kForward:
      times_.forward += span.wall;
      costs.chunks[chunk].forward += span.cost;
      break;
    case StepCause::kBackwardInput:
      times_.backward += span.wall;
      costs.chunks[chunk].backward_input += span.cost;
      break;
    case StepCause::kBackwardWeight:
      times_.backward += span.wall;
      costs.chunks[chunk].backward_weight += span.cost;
      break;
    case StepCause::kMessages:
      times_.pipeline_wait += span.wall;
      break;
    case StepCause::kReduceGradients:
      times_.gradient_wait += span.wall;
      costs.reduction += span.cost;
      break;
    case StepCause::kGatherParameters:
      times_.gradient_wait += span.wall;
      break;
    case StepCause::kCopies:
      times_.copy_wait += span.wall;
      break;
    case StepCause::kClip:
      times_.optimizer += span.wall;
      // Processor time hardly runs while the rank waits.
      costs.clip += std::min(span.cost, span.wall);
      break;
    case StepCause::kClipWait:
      wait_for_all += span.wall;
      costs.clip_wait += span.wall;
      break;
    case StepCause::kEndWait:
      wait_for_all += span.wall;
      break;
    case StepCause::kUpdate:
      times_.optimizer += span.wall;
      times_.update += span.wall;
      costs.chunks[chunk].update += span.cost;
      break;
  }
}

void StepLedger::AddEntries() {
  // Those within others come behind them.
  for (auto entry = entries_.rbegin(); entry != entries_.rend(); ++entry) {
    const double all = entry->end->SecondsSince(*entry->begin);
    if (entry->around != kNothing) entries_[entry->around].inner += all;
    // What was booked by the host's clock may be a little more than all.
    const double own = std::max(0.0, all - entry->inner);
    Add(entry->cause, entry->chunk, {own, own});
  }
  entries_.clear();
}

StepTimes StepLedger::Finish() {
  if (by_stream()) {
    const std::shared_ptr<StreamMark> end = stream_->Mark();
    end->Wait();
    AddEntries();
    times_.step = end->SecondsSince(*begin_);
    return times_;
  }
  times_.step = (clock_.Now() - start_).wall;
  return times_;
}

}  // namespace trireme
