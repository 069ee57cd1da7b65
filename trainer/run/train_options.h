// What a person asks of a training run.

#ifndef TRIREME_TRAINER_RUN_TRAIN_OPTIONS_H_
#define TRIREME_TRAINER_RUN_TRAIN_OPTIONS_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "runtime/core/processors.h"
#include "runtime/device/compute_device.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/job/job.pb.h"
#include "trainer/metrics/step_metrics.h"

namespace trireme {

// What may be asked of a run while it trains; done after the step at hand.
struct Orders {
  bool save = false;
  // Saves, then ends.
  bool stop = false;
};

struct TrainOptions {
  // With defaults filled (FillJobDefaults) and overrides applied.
  Job job;
  // As the user wrote it; absent: the default rule of DefaultPlan.
  std::optional<Plan> plan;
  std::string out;
  // Goes on from the newest whole checkpoint in `out`, or from that of
  // `from_step`. Without it, a folder that already holds a run is an error.
  bool resume = false;
  std::optional<int64_t> from_step;
  // How long to wait for a folder that another process still holds.
  std::chrono::seconds lock_patience{0};
  // Fields of the job that may differ from the run's nevertheless (CheckSameRun
  // in trainer/run/resume.h).
  std::vector<std::string> allow;
  // Writes a Chrome trace of the run's second to fourth step, counted from
  // where it begins or goes on, into the run's folder.
  bool trace = false;
  // A bar that redraws itself; absent: if standard output is a terminal.
  std::optional<bool> progress_bar;
  ComputeDevice device;
  // By what its tensors travel between ranks; empty where that is no question.
  std::string messages;
  // Of this machine, whose ranks share its memory, too.
  ProcessorShare share;
  // Its name, by which ranks are on one host or on several; absent: as the
  // system says.
  std::optional<std::string> host;
  // Asked after each step, and all the time while samples are drawn, which an
  // order to stop breaks off; what one rank is ordered all do. An order is
  // carried out once for each time that it is given. Absent, as then on all
  // ranks: nobody orders anything.
  std::function<Orders()> orders;
  // Told each step's figures, which are complete on rank 0, and the number of
  // steps. Absent: nobody listens.
  std::function<void(const StepMetrics&, int64_t steps)> listener;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_RUN_TRAIN_OPTIONS_H_
