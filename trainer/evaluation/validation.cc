#include "trainer/evaluation/validation.h"

#include <algorithm>
#include <span>
#include <utility>

#include "runtime/core/status.h"
#include "runtime/ops/reduction.h"

namespace trireme {
namespace {

// Keys noise and times; training counts from 1, and data sets draw as of 0.
constexpr int64_t kValidationStep = -1;

}  // namespace

absl::StatusOr<double> LossOf(RankModel& model, const Batch& local_batch,
                              const Objective& objective) {
  const auto microbatch_size =
      static_cast<int64_t>(model.plan().microbatch_size());
  double loss = 0;
  RETURN_IF_ERROR(model.Evaluate(
      /*averaged=*/false,
      [&](LocalModel& local, StageForward& forward) -> absl::Status {
        local.inputs().Set(local_batch, objective);
        for (int64_t i = 0; i < local_batch.size() / microbatch_size; ++i) {
          for (const Tape::Loss& part : forward.Run(i)) {
            if (part.name == kObjectiveLoss) {
              loss += part.weight * Sum(part.value);
            }
          }
        }
        return local.status();
      }));
  model.context().communicators().control().Sum(std::span(&loss, 1),
                                                "validation loss");
  return loss;
}

Validation::Validation(const Dataset& dataset, const Job& job,
                       const TrainingSetup& setup)
    : dataset_(dataset),
      setup_(setup),
      samples_(job.validation().samples()),
      threads_(static_cast<int>(job.data().decode_threads())),
      objective_(*setup.objective, samples_) {}

absl::Status Validation::Rehearse(RankModel& dry) const {
  Batch batch = dry.DryBatch();
  // Padding takes more than samples do.
  if (samples_ % setup_.global_batch > 0) {
    std::fill(batch.samples.begin(), batch.samples.end(), samples_);
  }
  return LossOf(dry, batch, objective_).status();
}

void Validation::Begin(RankModel& model) {
  model_ = &model;
  reader_ = std::make_unique<BatchReader>(
      dataset_,
      LoaderOptions{.seed = setup_.seed,
                    .global_batch = setup_.global_batch,
                    .first = model.first_sample(),
                    .count = model.local_batch(),
                    .fields = model.fields(),
                    .drops = setup_.encoder_drops,
                    .threads = threads_},
      ExchangeOver(model.context().communicators().control()));
}

absl::StatusOr<double> Validation::Measure() {
  double sum = 0;
  for (int64_t position = 0; position < samples_;
       position += setup_.global_batch) {
    ASSIGN_OR_RETURN(
        const Batch batch,
        reader_->Read(model_->context().device(), kValidationStep, position));
    ASSIGN_OR_RETURN(const double loss, LossOf(*model_, batch, objective_));
    sum += loss;
  }
  // What comes next is decoded while training goes on.
  reader_->Rewind();
  return sum * static_cast<double>(setup_.global_batch) /
         static_cast<double>(samples_);
}

}  // namespace trireme
