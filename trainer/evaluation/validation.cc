#include "trainer/evaluation/validation.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "models/objective/first_samples.h"
#include "moe/moe_tokens.h"
#include "runtime/core/status.h"
#include "runtime/device/host.h"
#include "runtime/ops/pointwise.h"
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

void AddTo(std::vector<double>& sums, const std::vector<double>& values) {
  if (sums.empty()) sums.resize(values.size());
  for (size_t i = 0; i < values.size(); ++i) sums[i] += values[i];
}

// Of what this rank's units reported those with the name, `length` numbers.
std::vector<double> SumOfReports(const std::vector<Tape::Counts>& reports,
                                 const std::string& name, int64_t length) {
  std::vector<double> sums(length);
  for (const Tape::Counts& counts : reports) {
    if (counts.name != name) continue;
    const Tensor& values = counts.values;
    AddTo(sums, Download<double>(values.dtype() == DType::kFloat64
                                     ? values
                                     : Cast(values, DType::kFloat64)));
  }
  return sums;
}

}  // namespace

std::optional<double> Measured::accuracy() const {
  if (hits.size() != 2 || hits[0] + hits[1] == 0) return std::nullopt;
  return hits[1] / (hits[0] + hits[1]);
}

absl::StatusOr<Measured> MeasureOf(RankModel& model, const Batch& local_batch,
                                   const Objective& objective) {
  const auto microbatch_size =
      static_cast<int64_t>(model.plan().microbatch_size());
  Measured measured;
  Batch batch = local_batch;
  batch.counted = model.CountedOf(batch, objective);
  measured.counted = batch.counted;
  std::vector<Tape::Counts> reports;
  RETURN_IF_ERROR(model.Evaluate(
      /*averaged=*/false,
      [&](LocalModel& local, StageForward& forward) -> absl::Status {
        local.inputs().Set(batch, objective);
        for (int64_t i = 0; i < local_batch.size() / microbatch_size; ++i) {
          for (const Tape::Loss& part : forward.Run(i)) {
            if (part.name == kObjectiveLoss) {
              measured.loss += part.weight * Sum(part.value);
            }
          }
          std::vector<Tape::Counts> of_microbatch = forward.TakeCounts();
          std::move(of_microbatch.begin(), of_microbatch.end(),
                    std::back_inserter(reports));
        }
        return local.status();
      }));
  const bool by_kinds = !objective.RouteKinds(local_batch).empty();
  std::vector<double> sums = {measured.loss};
  for (const auto& [name, length] : model.counts()) {
    if (name.ends_with(kDemandedRoutes)) continue;
    const bool of_routes = name != kHitCounts;
    const std::vector<double> own = SumOfReports(
        reports, name, of_routes && by_kinds ? kRouteKinds * length : length);
    (of_routes ? measured.routes[name] : measured.hits).resize(own.size());
    sums.insert(sums.end(), own.begin(), own.end());
  }
  model.context().communicators().control().Sum(std::span(sums),
                                                "validation loss");
  measured.loss = sums.front();
  auto next = sums.begin() + 1;
  for (const auto& [name, length] : model.counts()) {
    if (name.ends_with(kDemandedRoutes)) continue;
    std::vector<double>& counts =
        name == kHitCounts ? measured.hits : measured.routes[name];
    std::copy_n(next, counts.size(), counts.begin());
    next += static_cast<int64_t>(counts.size());
  }
  return measured;
}

absl::StatusOr<double> LossOf(RankModel& model, const Batch& local_batch,
                              const Objective& objective) {
  ASSIGN_OR_RETURN(const Measured measured,
                   MeasureOf(model, local_batch, objective));
  return measured.loss;
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

bool Validation::Stops(const std::function<bool()>& stop) const {
  if (stop == nullptr) return false;
  std::array<int64_t, 1> any = {stop()};
  model_->context().communicators().control().Max(std::span(any),
                                                  "whether validation goes on");
  return any[0] != 0;
}

absl::StatusOr<Measured> Validation::Measure(
    const std::function<bool()>& stop) {
  const bool counts = !setup_.objective->counted_field().empty();
  Measured all;
  // Of each bucket, of all its samples together, and what it is to be a mean
  // over.
  std::vector<double> losses(bucket_samples_.size());
  std::vector<double> weights(bucket_samples_.begin(), bucket_samples_.end());
  if (counts) std::fill(weights.begin(), weights.end(), 0);
  for (size_t i = 0; i < turns_.size(); ++i) {
    if (Stops(stop)) {
      reader_->Rewind();
      return absl::CancelledError("stopped while samples were measured");
    }
    const BucketTurn& turn = turns_[i];
    ASSIGN_OR_RETURN(
        const Batch batch,
        reader_->Read(model_->context().device(), kValidationStep,
                      i * static_cast<uint64_t>(setup_.global_batch)));
    const FirstSamples objective(
        *setup_.objective, static_cast<int64_t>(turn.position) + turn.samples);
    ASSIGN_OR_RETURN(const Measured measured,
                     MeasureOf(*model_, batch, objective));
    // Of a batch it is a mean over as many as a step of training has.
    const double of_batch =
        counts ? measured.counted : static_cast<double>(setup_.global_batch);
    losses[turn.bucket] += measured.loss * of_batch;
    if (counts) weights[turn.bucket] += measured.counted;
    all.counted += measured.counted;
    AddTo(all.hits, measured.hits);
    for (const auto& [layer, routes] : measured.routes) {
      AddTo(all.routes[layer], routes);
    }
  }
  // What comes next is decoded while training goes on.
  reader_->Rewind();
  const double weight = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (size_t b = 0; b < losses.size(); ++b) {
    all.loss += losses[b] / std::max(weight, 1.0);
    if (dataset_.buckets() == nullptr || bucket_samples_[b] == 0) continue;
    all.by_size.push_back({.size = dataset_.buckets()->sizes[b],
                           .samples = bucket_samples_[b],
                           .loss = losses[b] / std::max(weights[b], 1.0)});
  }
  return all;
}

}  // namespace trireme
