// A run that samples are drawn from: its job, its data and its weights.

#ifndef TRIREME_TRAINER_SAMPLING_LOADED_RUN_H_
#define TRIREME_TRAINER_SAMPLING_LOADED_RUN_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/data/dataset.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/control.h"
#include "runtime/device/device.h"
#include "trainer/job/job.pb.h"
#include "trainer/rank/training_setup.h"
#include "trainer/sampling/draw_samples.h"
#include "trainer/sampling/prompts.h"
#include "trainer/sampling/sampler.h"

namespace trireme {

struct LoadedRun {
  Job job;
  TrainingSetup setup;
  // Null where the run tells its classes and nothing else is needed.
  std::unique_ptr<Dataset> dataset;
  // Where samples are drawn at the voxels of others.
  std::unique_ptr<Dataset> held_out_voxels;
  std::vector<std::string> class_names;

  PromptSource prompts() const {
    return {*setup.family,
            held_out_voxels != nullptr ? held_out_voxels.get() : dataset.get(),
            class_names};
  }
};

// What draws a run's samples: on any device, hence without products in FP8.
TrainingSetup SetupToDraw(TrainingSetup of_training);

// options.run, at the size that they ask for.
absl::StatusOr<LoadedRun> LoadRun(const DrawOptions& options);

// The folder of the checkpoint to draw from, which rank 0 chooses and checks.
// Collective.
absl::StatusOr<std::string> ChooseCheckpoint(Communicator& everyone,
                                             Control& control,
                                             const DrawOptions& options);

// How it is drawn: as the job says, but for what the options do. Errors: what
// does not fit the objective.
absl::StatusOr<SamplerOptions> SamplingFor(const DrawOptions& options,
                                           const LoadedRun& loaded);

// The model with the checkpoint's weights, under the run's plan or on one rank.
// Collective over the factory's world; the same error on all ranks.
absl::StatusOr<std::unique_ptr<Sampler>> OpenSampler(
    const DrawOptions& options, const LoadedRun& loaded,
    const std::string& checkpoint, Device& device, CommunicatorFactory& factory,
    Control& control);

}  // namespace trireme

#endif  // TRIREME_TRAINER_SAMPLING_LOADED_RUN_H_
