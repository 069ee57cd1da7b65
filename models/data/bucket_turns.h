// An order of a data set in buckets for whoever measures it: some samples of
// each bucket, one bucket after the other.

#ifndef TRIREME_MODELS_DATA_BUCKET_TURNS_H_
#define TRIREME_MODELS_DATA_BUCKET_TURNS_H_

#include <cstdint>
#include <span>
#include <vector>

namespace trireme {

// A batch of one bucket.
struct BucketTurn {
  int32_t bucket = 0;
  // Of its first sample in the bucket's own order (BucketOrder::Index), and
  // among all samples of all turns.
  uint64_t place = 0;
  uint64_t position = 0;
  // As many count; what fills the batch up behind them is padding.
  int64_t samples = 0;
};

// Batches of `batch` samples that visit samples[b] samples of each bucket b.
std::vector<BucketTurn> BucketTurns(std::span<const int64_t> samples,
                                    int64_t batch);

// How many of `count` samples are of each bucket if these have theirs in
// proportion to `sizes`, what they hold: at most that, `count` together.
// `count` is at most the sum of `sizes`, which is less than 2^63.
std::vector<int64_t> ProportionalShares(std::span<const int64_t> sizes,
                                        int64_t count);

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_BUCKET_TURNS_H_
