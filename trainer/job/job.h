// From a Job as written to a Job with every default filled in, and to the
// plain values that the trainer computes with.

#ifndef TRIREME_TRAINER_JOB_JOB_H_
#define TRIREME_TRAINER_JOB_JOB_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/data/dataset.h"
#include "models/family.h"
#include "models/sampling/flow_sampler.h"
#include "scheduler/plan/plan.h"
#include "trainer/job/job.pb.h"
#include "trainer/rank/training_setup.h"

namespace trireme {

// What the data set tells of itself.
struct DataSummary {
  int64_t samples = 0;
  int64_t classes = 0;
  // By bucket, where pictures come in several sizes.
  std::vector<int64_t> bucket_samples;
};

DataSummary SummaryOf(const Dataset& dataset);

// Fills the defaults that need no data set (channels, precision, optimizer,
// sampling, ...; of latents what their folder says of them) and checks ranges.
// Errors name the field as the job writes it ("optimizer.learning_rate"), what
// was found and what was expected.
absl::Status FillJobDefaults(Job& job);

Solver SolverOf(const SampleConfig& config);

// Whether the model can draw for `prompts` captions that are asked for in
// `field`; it can for none.
absl::Status CheckPrompts(std::string_view field, int64_t prompts,
                          const ModelFamily& family);

// The setup of a job that FillJobDefaults has passed; fills the model's sizes
// into the job.
absl::StatusOr<TrainingSetup> ResolveJob(Job& job, const DataSummary& data);

// The setup of the same job and model over pictures of one other size, as for
// drawing. Errors: a size that the model cannot have.
absl::StatusOr<TrainingSetup> SetupAt(const TrainingSetup& setup,
                                      const Job& job, const PictureSize& size);

// What a plan for the job must fit; stages are cut by matrix-product FLOPs.
PlanContext PlanContextOf(const TrainingSetup& setup, int64_t world_size);

}  // namespace trireme

#endif  // TRIREME_TRAINER_JOB_JOB_H_
