// The order of a data set in buckets loses and repeats nothing, keeps to each
// bucket's share, and is found from any batch on.

#include "models/data/bucket_order.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"

namespace trireme {
namespace {

// Buckets of as many samples, which are dealt to them in turn.
Buckets BucketsOf(const std::vector<int64_t>& counts) {
  Buckets buckets;
  buckets.samples.resize(counts.size());
  buckets.sizes.resize(counts.size());
  int64_t most = *std::max_element(counts.begin(), counts.end());
  for (int64_t round = 0; round < most; ++round) {
    for (size_t b = 0; b < counts.size(); ++b) {
      if (round >= counts[b]) continue;
      buckets.samples[b].push_back(
          static_cast<int64_t>(buckets.of_sample.size()));
      buckets.of_sample.push_back(static_cast<int32_t>(b));
    }
  }
  return buckets;
}

// Batches of one size from the first sample on.
std::vector<BatchSpan> Spans(int64_t batch) { return {{0, batch}}; }

const std::vector<std::vector<int64_t>> kCounts = {
    {10}, {7, 3}, {1, 50, 0, 13}, {5, 5, 5}, {0, 2, 100, 1, 1}};

TEST(BucketOrderTest, EachEpochOfABucketVisitsItsSamplesOnceInAnyBatches) {
  for (const std::vector<int64_t>& counts : kCounts) {
    const Buckets buckets = BucketsOf(counts);
    // Larger than some buckets, and no divisor of them.
    const int64_t batch = 4;
    const BucketOrder order(3, buckets, Spans(batch));
    std::vector<uint64_t> next(counts.size());
    std::map<int64_t, int64_t> visits;
    const auto steps = static_cast<uint64_t>(buckets.of_sample.size()) * 6;
    for (uint64_t step = 0; step < steps; ++step) {
      const BucketOrder::Batch at = order.At(step);
      // Batches of a bucket follow each other without a gap.
      ASSERT_EQ(at.first, next[at.bucket]);
      next[at.bucket] += batch;
      for (int64_t i = 0; i < batch; ++i) {
        const int64_t index = order.Index(at.bucket, at.first + i);
        ASSERT_EQ(buckets.of_sample[index], at.bucket);
        ++visits[index];
      }
    }
    for (size_t index = 0; index < buckets.of_sample.size(); ++index) {
      // What has begun of the bucket's last epoch may be one visit more.
      const int32_t bucket = buckets.of_sample[index];
      const auto epochs = static_cast<int64_t>(next[bucket]) / counts[bucket];
      EXPECT_GE(visits[index], epochs);
      EXPECT_LE(visits[index], epochs + 1);
    }
  }
}

TEST(BucketOrderTest, EveryBucketAlwaysHasHadItsShare) {
  for (const std::vector<int64_t>& counts : kCounts) {
    const Buckets buckets = BucketsOf(counts);
    const BucketOrder order(11, buckets, Spans(8));
    const auto all = static_cast<double>(buckets.of_sample.size());
    std::vector<int64_t> batches(counts.size());
    for (uint64_t step = 0; step < 5000; ++step) {
      ++batches[order.At(step).bucket];
      for (size_t b = 0; b < counts.size(); ++b) {
        const double share = static_cast<double>(counts[b]) / all;
        const double expected = static_cast<double>(step + 1) * share;
        ASSERT_LE(std::abs(static_cast<double>(batches[b]) - expected),
                  1 + share * static_cast<double>(counts.size()))
            << "bucket " << b << " at " << step;
      }
    }
  }
}

TEST(BucketOrderTest, LateBatchesAreFoundAsTheyWouldComeOneByOne) {
  const Buckets buckets = BucketsOf({1, 50, 0, 13});
  const BucketOrder order(3, buckets, Spans(4));
  // A long way on, still without a gap within each bucket.
  const uint64_t late = uint64_t{1} << 40;
  std::map<int32_t, uint64_t> next;
  for (uint64_t step = late; step < late + 500; ++step) {
    const BucketOrder::Batch at = order.At(step);
    if (next.contains(at.bucket)) {
      ASSERT_EQ(at.first, next[at.bucket]);
    }
    next[at.bucket] = at.first + 4;
  }
  EXPECT_EQ(next.size(), 3u);
}

TEST(BucketOrderTest, BucketsAreMixedAndSeedsDiffer) {
  const Buckets buckets = BucketsOf({500, 500});
  const BucketOrder order(1, buckets, Spans(4)), other(2, buckets, Spans(4));
  int turns = 0, same = 0;
  for (uint64_t step = 0; step < 1000; ++step) {
    turns += order.At(step).bucket != order.At(step + 1).bucket;
    same += order.At(step).bucket == other.At(step).bucket;
  }
  // Neither one after the other nor always in turn.
  EXPECT_GT(turns, 400);
  EXPECT_LT(turns, 900);
  EXPECT_GT(same, 350);
  EXPECT_LT(same, 650);
}

// A run that goes on with batches of another size goes through each bucket's
// epochs as before, and every bucket keeps its share.
TEST(BucketOrderTest, AnotherBatchSizeRepeatsAndLosesNothing) {
  for (const std::vector<int64_t>& counts : kCounts) {
    const Buckets buckets = BucketsOf(counts);
    const auto all = static_cast<double>(buckets.of_sample.size());
    std::vector<BatchSpan> spans;
    std::vector<uint64_t> next(counts.size());
    uint64_t consumed = 0;
    for (const int64_t batch : {4, 7, 1, 16, 4}) {
      spans.push_back({consumed, batch});
      ASSERT_TRUE(AreSpans(spans));
      const BucketOrder order(3, buckets, spans);
      EXPECT_EQ(order.start(), consumed);
      const std::vector<uint64_t> before = next;
      for (uint64_t number = 0; number < 60; ++number) {
        const BucketOrder::Batch at = order.At(number);
        ASSERT_EQ(at.first, next[at.bucket]);
        next[at.bucket] += batch;
        consumed += batch;
      }
      for (size_t b = 0; b < counts.size(); ++b) {
        const double share = static_cast<double>(counts[b]) / all;
        EXPECT_LE(std::abs(static_cast<double>(next[b] - before[b]) -
                           60 * static_cast<double>(batch) * share),
                  static_cast<double>(batch) *
                      (1 + share * static_cast<double>(counts.size())))
            << "bucket " << b << " with batches of " << batch;
      }
    }
  }
}

TEST(BucketOrderTest, SpansBeginAtZeroAndFollowByWholeBatches) {
  const auto are = [](const std::vector<BatchSpan>& spans) {
    return AreSpans(spans);
  };
  EXPECT_TRUE(are({{0, 4}, {36, 8}, {52, 3}}));
  EXPECT_FALSE(are({{4, 4}}));
  EXPECT_FALSE(are({{0, 4}, {35, 8}}));
  EXPECT_FALSE(are({{0, 4}, {0, 8}}));
  EXPECT_FALSE(are({{0, 4}, {8, 8}, {4, 2}}));
  EXPECT_FALSE(are({{0, 0}}));
}

TEST(BucketOrderTest, OrderIsPartOfARunAndMustNotChange) {
  const Buckets buckets = BucketsOf({7, 3, 5});
  const BucketOrder order(42, buckets, Spans(4));
  std::vector<int32_t> found;
  for (uint64_t step = 0; step < 15; ++step) {
    found.push_back(order.At(step).bucket);
  }
  EXPECT_EQ(found, (std::vector<int32_t>{1, 2, 0, 0, 2, 0, 1, 0, 2, 0, 2, 1, 0,
                                         2, 0}));
}

}  // namespace
}  // namespace trireme
