// What a run finds out about its model while it trains: the loss of samples
// that are held out, and what it draws.

#ifndef TRIREME_TRAINER_EVALUATION_EVALUATIONS_H_
#define TRIREME_TRAINER_EVALUATION_EVALUATIONS_H_

#include <cstdint>
#include <functional>
#include <optional>

#include "absl/status/status.h"
#include "runtime/comm/communicator.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/evaluation/periodic_samples.h"
#include "trainer/evaluation/validation.h"
#include "trainer/job/job.pb.h"
#include "trainer/metrics/step_metrics.h"
#include "trainer/rank/rank_model.h"
#include "trainer/run/prepare.h"
#include "trainer/run/run_folder.h"
#include "trainer/run/run_log.h"

namespace trireme {

// Whether the model that trains draws the samples of sample.at_end, after its
// last step. Otherwise the model is read anew for them (draw_at_end.h), which
// takes less memory; but whole, and what is offloaded may not fit a device so.
bool DrawsAtEnd(const Job& job, const Plan& plan);

class Evaluations {
 public:
  // What the run's job asks for. `run` outlives it.
  explicit Evaluations(const PreparedRun& run);

  // What RankModel::Build rehearses; null where the job asks for nothing.
  RankModel::BetweenSteps rehearsal() const;

  // Before the first step, on the model that trains. Collective; the same error
  // on all ranks.
  absl::Status Begin(RankModel& model, CommunicatorFactory& factory);

  // Whether AfterStep has something to do.
  bool Due(int64_t step) const { return Validates(step) || Draws(step); }
  // Whether all that is rehearsed has been done since Begin: else its memory
  // was not needed.
  bool DidAll() const {
    return (!validation_.has_value() || validated_) &&
           (!samples_.has_value() || drew_);
  }
  // Whether samples were to be drawn after the step, and were not: `stop` said
  // so, or they cannot be. The same on all ranks.
  bool DrewInVain(int64_t step) const { return drew_in_vain_ == step; }
  // Measures what is due after a step, into its metrics, and shows how the
  // parameters are distributed. `log` is null but on rank 0. What cannot be
  // drawn or shown is told, and training goes on. `stop`: where a rank is told
  // so, what is being measured and drawn is broken off (Sampler::StopWhen,
  // Validation::Measure). Collective.
  absl::Status AfterStep(const RunFolder& folder, RunLog* log,
                         StepMetrics& metrics,
                         const std::function<bool()>& stop);

 private:
  bool Validates(int64_t step) const;
  bool Draws(int64_t step) const;
  void ShowParameters(int64_t step, RunLog* log);
  absl::Status Validate(const RunFolder& folder, RunLog* log,
                        StepMetrics& metrics,
                        const std::function<bool()>& stop);
  // Writes and logs a picture of which experts the samples went to.
  absl::Status ShowRouting(int64_t step, const Measured& measured,
                           const RunFolder& folder, RunLog& log) const;
  absl::Status Draw(int64_t step, const RunFolder& folder, RunLog* log,
                    const std::function<bool()>& stop);

  const PreparedRun& run_;
  RankModel* model_ = nullptr;
  std::optional<Validation> validation_;
  std::optional<PeriodicSamples> samples_;
  bool validated_ = false;
  bool drew_ = false;
  int64_t drew_in_vain_ = 0;  // after that step; 0: never
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_EVALUATION_EVALUATIONS_H_
