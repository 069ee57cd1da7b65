// What a model draws while it trains: the same noise and prompts each time, so
// that one sees it learn.

#ifndef TRIREME_TRAINER_EVALUATION_PERIODIC_SAMPLES_H_
#define TRIREME_TRAINER_EVALUATION_PERIODIC_SAMPLES_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/data/dataset.h"
#include "models/sampling/flow_sampler.h"
#include "trainer/job/job.pb.h"
#include "trainer/rank/rank_model.h"
#include "trainer/rank/training_setup.h"

namespace trireme {

class PeriodicSamples {
 public:
  // All outlive it.
  PeriodicSamples(const Job& job, const TrainingSetup& setup);

  // Draws on a dry model: takes the memory of a drawing.
  absl::Status Rehearse(RankModel& dry) const;

  // Chooses the prompts, those of `trireme sample`, from the data set with
  // these classes. Collective. Errors, the same on all ranks: no prompts.
  absl::Status Begin(const Dataset& dataset,
                     const std::vector<std::string>& class_names,
                     CommunicatorFactory& factory);

  // Draws with the moving average of the weights, where one is kept, and rank 0
  // writes the grid to `path` (a PNG; of shapes, meshes too). Collective; the
  // same status on all ranks. `stop`: Sampler::StopWhen's.
  absl::Status Draw(RankModel& model, const std::string& path,
                    const std::function<bool()>& stop) const;

 private:
  const Job& job_;
  const TrainingSetup& setup_;
  const SamplerOptions options_;
  std::vector<std::string> names_;  // of rows; rank 0's
  std::vector<Sample> prompts_;     // of all samples
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_EVALUATION_PERIODIC_SAMPLES_H_
