// The loss of samples that are held out, at noise and times that never change:
// what says whether a model learns more than its samples.

#ifndef TRIREME_TRAINER_EVALUATION_VALIDATION_H_
#define TRIREME_TRAINER_EVALUATION_VALIDATION_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/data/dataset.h"
#include "models/objective/first_samples.h"
#include "trainer/batches.h"
#include "trainer/job.pb.h"
#include "trainer/rank_model.h"
#include "trainer/training_setup.h"

namespace trireme {

// The objective's own loss of the samples of all ranks' local batches, as
// training has it, without training. Collective over the world. Errors: out of
// memory.
absl::StatusOr<double> LossOf(RankModel& model, const Batch& local_batch,
                              const Objective& objective);

class Validation {
 public:
  // Of a job as OpenValidationSamples left it. All outlive it.
  Validation(const Dataset& dataset, const Job& job,
             const TrainingSetup& setup);

  // Measures nothing on a dry model: takes the memory of a measurement.
  absl::Status Rehearse(RankModel& dry) const;

  // Reads the samples with the model that is measured from now on. Collective.
  void Begin(RankModel& model);
  // The objective's own loss, without what blocks add, as a mean over the
  // samples: the same on every rank and, to rounding, on every grid.
  // Collective. Errors: samples that cannot be read, out of memory.
  absl::StatusOr<double> Measure();

  int64_t samples() const { return samples_; }

 private:
  const Dataset& dataset_;
  const TrainingSetup& setup_;
  const int64_t samples_;
  const int threads_;
  FirstSamples objective_;
  RankModel* model_ = nullptr;
  std::unique_ptr<BatchReader> reader_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_EVALUATION_VALIDATION_H_
