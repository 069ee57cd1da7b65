// The order in which a data set in buckets is consumed, a batch of one bucket
// after the other: a pure function of the seed and of the samples consumed, and
// of how many at a time.
//
// A bucket's samples come in an order of their own (sample_order.h), epoch
// after epoch, and its batches are cut from it one behind the other: what is
// left of an epoch begins the next batch, and nothing is dropped. Batch k of a
// bucket of n samples, of N in all, is due at the time (k + u)·N/n, u in [0, 1)
// a random number keyed by (seed, bucket, k); batches come as they are due. So
// each bucket always has had its share n/N of the batches to within a few, of
// which there are not more with time.
//
// Where batches have another size from some sample on, they are dealt anew from
// there; each bucket's own order goes on where it was, so that nothing is
// repeated or lost.

#ifndef TRIREME_MODELS_DATA_BUCKET_ORDER_H_
#define TRIREME_MODELS_DATA_BUCKET_ORDER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "models/data/buckets.h"
#include "models/data/sample_order.h"

namespace trireme {

// Batches of `batch` samples, from the sample consumed at `position` on.
struct BatchSpan {
  uint64_t position = 0;
  int64_t batch = 1;

  bool operator==(const BatchSpan&) const = default;
};

// Whether these are the spans of a run: the first from position 0 on, each
// behind the one before by whole batches of that, one at least.
bool AreSpans(std::span<const BatchSpan> spans);

class BucketOrder {
 public:
  // `buckets` outlives the order; `spans` are such (AreSpans), one at least.
  BucketOrder(uint64_t seed, const Buckets& buckets,
              std::span<const BatchSpan> spans);

  // Where the last span begins.
  uint64_t start() const { return start_; }

  struct Batch {
    int32_t bucket = 0;
    // Of its first sample in the bucket's own order.
    uint64_t first = 0;
  };
  // Of the last span, from 0. Takes as long whatever the number.
  Batch At(uint64_t number) const;

  // The index in the data set of the sample at `place` in the bucket's own
  // order, or of what takes its place (SampleOrder::Replacement).
  int64_t Index(int32_t bucket, uint64_t place, int64_t attempt = 0) const;
  // The attempts that visit all of the bucket.
  int64_t Attempts(int32_t bucket) const { return SamplesOf(bucket); }

 private:
  // When a bucket's batch k is due: time over samples.
  struct Due {
    unsigned __int128 time;
    uint64_t samples;
    bool operator<(const Due& other) const;
  };
  Due DueOf(size_t nonempty, uint64_t k) const;
  int64_t SamplesOf(int32_t bucket) const {
    return static_cast<int64_t>(buckets_.samples[bucket].size());
  }
  // Batches of a bucket that are due before `number` batches are.
  uint64_t CountBefore(size_t nonempty, uint64_t number) const;
  // How many of the span's first `number` batches are of each bucket.
  std::vector<uint64_t> Counts(uint64_t number) const;

  uint64_t seed_;
  const Buckets& buckets_;
  uint64_t start_ = 0;
  uint64_t batch_ = 1;
  uint64_t samples_ = 0;  // of all buckets
  // Of buckets that have samples: which, and of each the samples and batches
  // that earlier spans took.
  std::vector<int32_t> nonempty_;
  std::vector<uint64_t> places_;
  std::vector<uint64_t> batches_;
  std::vector<SampleOrder> orders_;  // by bucket; of an empty one unused
};

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_BUCKET_ORDER_H_
