#include "parallel/step_ledger.h"

#include <algorithm>

namespace trireme {

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

StepTimes StepLedger::Finish() {
  times_.step = (clock_.Now() - start_).wall;
  return times_;
}

}  // namespace trireme
