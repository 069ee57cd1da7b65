#include "models/data/bucket_order.h"

#include <algorithm>

#include "runtime/core/log.h"
#include "runtime/core/philox.h"

namespace trireme {
namespace {

// Of the streams that say when batches are due: none that a SampleOrder draws.
constexpr uint16_t kDueLayer = 0x100;

// A random number u is a whole one over 2^32.
constexpr int kFractionBits = 32;

}  // namespace

bool AreSpans(std::span<const BatchSpan> spans) {
  for (size_t i = 0; i < spans.size(); ++i) {
    if (spans[i].batch < 1) return false;
    if (i == 0) {
      if (spans[i].position != 0) return false;
      continue;
    }
    const BatchSpan& before = spans[i - 1];
    if (spans[i].position <= before.position ||
        (spans[i].position - before.position) %
                static_cast<uint64_t>(before.batch) !=
            0) {
      return false;
    }
  }
  return true;
}

BucketOrder::BucketOrder(uint64_t seed, const Buckets& buckets,
                         std::span<const BatchSpan> spans)
    : seed_(seed), buckets_(buckets) {
  CHECK(!spans.empty() && AreSpans(spans));
  for (size_t i = 0; i < buckets.samples.size(); ++i) {
    const auto bucket = static_cast<int32_t>(i);
    const int64_t samples = SamplesOf(bucket);
    samples_ += static_cast<uint64_t>(samples);
    if (samples > 0) nonempty_.push_back(bucket);
    orders_.emplace_back(seed, std::max<int64_t>(samples, 1));
  }
  CHECK(!nonempty_.empty());
  places_.resize(nonempty_.size());
  batches_.resize(nonempty_.size());
  batch_ = static_cast<uint64_t>(spans.front().batch);
  for (const BatchSpan& span : spans.subspan(1)) {
    const std::vector<uint64_t> counts =
        Counts((span.position - start_) / batch_);
    for (size_t i = 0; i < counts.size(); ++i) {
      places_[i] += counts[i] * batch_;
      batches_[i] += counts[i];
    }
    start_ = span.position;
    batch_ = static_cast<uint64_t>(span.batch);
  }
}

bool BucketOrder::Due::operator<(const Due& other) const {
  return time * other.samples < other.time * samples;
}

BucketOrder::Due BucketOrder::DueOf(size_t nonempty, uint64_t k) const {
  const RandomStream stream({.seed = seed_,
                             .step = batches_[nonempty] + k,
                             .sample = nonempty,
                             .layer = kDueLayer,
                             .purpose = RandomPurpose::kShuffle});
  const uint64_t fraction =
      stream.Bits(0) & ((uint64_t{1} << kFractionBits) - 1);
  return {
      .time = (static_cast<unsigned __int128>(k) << kFractionBits) + fraction,
      .samples = static_cast<uint64_t>(SamplesOf(nonempty_[nonempty]))};
}

uint64_t BucketOrder::CountBefore(size_t nonempty, uint64_t number) const {
  const Due limit = {.time = static_cast<unsigned __int128>(number)
                             << kFractionBits,
                     .samples = samples_};
  // All of k < first are due before, and of the others at most that one.
  const auto first = static_cast<uint64_t>(
      static_cast<unsigned __int128>(number) *
      static_cast<uint64_t>(SamplesOf(nonempty_[nonempty])) / samples_);
  return first + (DueOf(nonempty, first) < limit ? 1 : 0);
}

std::vector<uint64_t> BucketOrder::Counts(uint64_t number) const {
  // Before this time at most `number` batches are due: its share of the time
  // and one more for each bucket.
  const uint64_t start = number - std::min<uint64_t>(number, nonempty_.size());
  std::vector<uint64_t> counts;
  std::vector<Due> next;
  uint64_t come = 0;
  for (size_t i = 0; i < nonempty_.size(); ++i) {
    counts.push_back(start == 0 ? 0 : CountBefore(i, start));
    next.push_back(DueOf(i, counts.back()));
    come += counts.back();
  }
  for (; come < number; ++come) {
    const auto first =
        std::min_element(next.begin(), next.end()) - next.begin();
    next[first] = DueOf(first, ++counts[first]);
  }
  return counts;
}

BucketOrder::Batch BucketOrder::At(uint64_t number) const {
  const std::vector<uint64_t> counts = Counts(number);
  size_t first = 0;
  for (size_t i = 1; i < counts.size(); ++i) {
    if (DueOf(i, counts[i]) < DueOf(first, counts[first])) first = i;
  }
  return {.bucket = nonempty_[first],
          .first = places_[first] + counts[first] * batch_};
}

int64_t BucketOrder::Index(int32_t bucket, uint64_t place,
                           int64_t attempt) const {
  return buckets_.samples[bucket][orders_[bucket].Replacement(place, attempt)];
}

}  // namespace trireme
