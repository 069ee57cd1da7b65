// The loss of samples that are held out, at noise and times that never change:
// what says whether a model learns more than its samples.

#ifndef TRIREME_TRAINER_EVALUATION_VALIDATION_H_
#define TRIREME_TRAINER_EVALUATION_VALIDATION_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/data/bucket_turns.h"
#include "models/data/dataset.h"
#include "models/image/picture_size.h"
#include "models/objective/objective.h"
#include "trainer/job/batches.h"
#include "trainer/job/job.pb.h"
#include "trainer/rank/rank_model.h"
#include "trainer/rank/training_setup.h"

namespace trireme {

struct Measured {
  // The objective's own.
  double loss = 0;
  // What it is a mean over (Objective::Counted): tokens, where samples have
  // unlike numbers of them; else 0.
  double counted = 0;
  // Where pictures come in several sizes, of each that was measured.
  struct OfSize {
    PictureSize size;
    int64_t samples = 0;
    double loss = 0;
  };
  std::vector<OfSize> by_size;
  // Samples whose classes are named wrongly and rightly; empty of a model that
  // names none.
  std::vector<double> hits;
  // By layer with experts its routes [kRouteKinds, experts] by the samples'
  // kinds (MoeTokens::kinds); where the objective tells none apart, [experts].
  std::map<std::string, std::vector<double>> routes;

  // The share of samples whose class is named rightly.
  std::optional<double> accuracy() const;
};

// What a model makes of the samples of all ranks' local batches, as training
// has it, without training; where samples have unlike numbers of tokens, a mean
// over theirs. Collective over the world. Errors: out of memory.
absl::StatusOr<Measured> MeasureOf(RankModel& model, const Batch& local_batch,
                                   const Objective& objective);
// The loss alone.
absl::StatusOr<double> LossOf(RankModel& model, const Batch& local_batch,
                              const Objective& objective);

class Validation {
 public:
  // Of a job as OpenValidationSamples left it. Of a data set in buckets each is
  // measured at its size, in samples in proportion to what it holds. All
  // outlive it.
  Validation(const Dataset& dataset, const Job& job,
             const TrainingSetup& setup);

  // Measures nothing on a dry model: takes the memory of a measurement.
  absl::Status Rehearse(RankModel& dry) const;

  // Reads the samples with the model that is measured from now on. Collective.
  void Begin(RankModel& model);
  // The losses as means over the samples, or all their tokens, without what
  // blocks add, and sums of counts: the same on every rank and, to rounding, on
  // every grid and with every batch. Collective. `stop`: on all ranks or none,
  // each asks it before each batch, and ends where one is told so. Errors:
  // samples that cannot be read, out of memory; Cancelled, stopped, on all.
  absl::StatusOr<Measured> Measure(const std::function<bool()>& stop = nullptr);

  int64_t samples() const { return samples_; }

 private:
  // Whether a rank is told so. Collective.
  bool Stops(const std::function<bool()>& stop) const;

  const Dataset& dataset_;
  const TrainingSetup& setup_;
  const int64_t samples_;
  const int threads_;
  std::vector<int64_t> bucket_samples_;  // of all in one where there are none
  std::vector<BucketTurn> turns_;        // a batch each
  RankModel* model_ = nullptr;
  std::unique_ptr<BatchReader> reader_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_EVALUATION_VALIDATION_H_
