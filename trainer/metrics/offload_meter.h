// What a rank's model moves, and waits for, in a step of a plan with offload.

#ifndef TRIREME_TRAINER_METRICS_OFFLOAD_METER_H_
#define TRIREME_TRAINER_METRICS_OFFLOAD_METER_H_

#include "parallel/executor/step_ledger.h"
#include "trainer/metrics/offload_figures.h"
#include "trainer/rank/rank_model.h"

namespace trireme {

// A rank's figures of each step.
class OffloadMeter {
 public:
  // The model, whose plan has offload, outlives it.
  explicit OffloadMeter(const RankModel& model) : model_(model) { Forget(); }

  // Of the step that is over, since the last call.
  OffloadFigures Take(const StepTimes& times, double step_s, double compute_s);
  // What was since then is of no step.
  void Forget();

 private:
  // Of all that was copied, read and written.
  OffloadFigures Totals() const;

  const RankModel& model_;
  OffloadFigures before_;
  double copies_waited_for_drive_s_ = 0;  // before
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_METRICS_OFFLOAD_METER_H_
