#include "trainer/evaluation/validation.h"

#include <algorithm>
#include <span>
#include <utility>

#include "models/objective/first_samples.h"
#include "runtime/core/status.h"
#include "runtime/ops/reduction.h"

namespace trireme {
namespace {

// Keys noise and times; training counts from 1, and data sets draw as of 0.
constexpr int64_t kValidationStep = -1;

// Of how many samples of each bucket the loss is measured.
std::vector<int64_t> SamplesByBucket(const Dataset& dataset, int64_t samples) {
  const Buckets* const buckets = dataset.buckets();
  if (buckets == nullptr) return {samples};
  std::vector<int64_t> sizes;
  for (const std::vector<int64_t>& bucket : buckets->samples) {
    sizes.push_back(static_cast<int64_t>(bucket.size()));
  }
  return ProportionalShares(sizes, samples);
}

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
      bucket_samples_(SamplesByBucket(dataset, samples_)),
      turns_(BucketTurns(bucket_samples_, setup.global_batch)) {}

absl::Status Validation::Rehearse(RankModel& dry) const {
  const FirstSamples objective(*setup_.objective, samples_);
  for (size_t b = 0; b < bucket_samples_.size(); ++b) {
    if (bucket_samples_[b] == 0) continue;
    Batch batch = dry.DryBatch(static_cast<int32_t>(b));
    // Padding takes more than samples do.
    if (bucket_samples_[b] % setup_.global_batch > 0) {
      std::fill(batch.samples.begin(), batch.samples.end(), samples_);
    }
    RETURN_IF_ERROR(LossOf(dry, batch, objective).status());
  }
  return absl::OkStatus();
}

void Validation::Begin(RankModel& model) {
  model_ = &model;
  LoaderOptions options = {.seed = setup_.seed,
                           .global_batch = setup_.global_batch,
                           .first = model.first_sample(),
                           .count = model.local_batch(),
                           .fields = model.fields(),
                           .drops = setup_.encoder_drops,
                           .threads = threads_};
  if (dataset_.buckets() != nullptr) options.turns = turns_;
  reader_ = std::make_unique<BatchReader>(
      dataset_, options,
      ExchangeOver(model.context().communicators().control()));
}

absl::StatusOr<ValidationLoss> Validation::Measure() {
  const auto global_batch = static_cast<double>(setup_.global_batch);
  // Of each bucket, of all its samples together.
  std::vector<double> sums(bucket_samples_.size());
  for (size_t i = 0; i < turns_.size(); ++i) {
    const BucketTurn& turn = turns_[i];
    ASSIGN_OR_RETURN(
        const Batch batch,
        reader_->Read(model_->context().device(), kValidationStep,
                      i * static_cast<uint64_t>(setup_.global_batch)));
    const FirstSamples objective(
        *setup_.objective, static_cast<int64_t>(turn.position) + turn.samples);
    ASSIGN_OR_RETURN(const double loss, LossOf(*model_, batch, objective));
    sums[turn.bucket] += loss * global_batch;
  }
  // What comes next is decoded while training goes on.
  reader_->Rewind();
  ValidationLoss loss;
  for (size_t b = 0; b < sums.size(); ++b) {
    loss.all += sums[b] / static_cast<double>(samples_);
    if (dataset_.buckets() == nullptr || bucket_samples_[b] == 0) continue;
    loss.by_size.push_back(
        {.size = dataset_.buckets()->sizes[b],
         .samples = bucket_samples_[b],
         .loss = sums[b] / static_cast<double>(bucket_samples_[b])});
  }
  return loss;
}

}  // namespace trireme
