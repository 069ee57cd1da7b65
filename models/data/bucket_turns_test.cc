// What is measured of a data set in buckets is each bucket's share, once.

#include "models/data/bucket_turns.h"

#include <cstdint>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"

namespace trireme {
namespace {

TEST(BucketTurnsTest, VisitEachBucketsSamplesOnceWhateverTheBatch) {
  const std::vector<int64_t> samples = {5, 0, 8, 1};
  for (const int64_t batch : {1, 3, 4, 100}) {
    std::vector<int64_t> visited(samples.size());
    uint64_t position = 0;
    for (const BucketTurn& turn : BucketTurns(samples, batch)) {
      EXPECT_GE(turn.samples, 1);
      EXPECT_LE(turn.samples, batch);
      EXPECT_EQ(turn.place, static_cast<uint64_t>(visited[turn.bucket]));
      // Of a sample the same whatever the batch.
      EXPECT_EQ(turn.position, position);
      visited[turn.bucket] += turn.samples;
      position += turn.samples;
    }
    EXPECT_EQ(visited, samples) << batch;
  }
}

TEST(BucketTurnsTest, SharesAreInProportionAndComeToAllThatIsAskedFor) {
  EXPECT_EQ(ProportionalShares(std::vector<int64_t>{6, 3, 3}, 4),
            (std::vector<int64_t>{2, 1, 1}));
  const std::vector<int64_t> sizes = {7, 0, 1, 100, 30};
  for (int64_t count = 0; count <= 138; ++count) {
    const std::vector<int64_t> shares = ProportionalShares(sizes, count);
    EXPECT_EQ(std::accumulate(shares.begin(), shares.end(), int64_t{0}), count);
    for (size_t b = 0; b < sizes.size(); ++b) {
      EXPECT_LE(shares[b], sizes[b]);
      EXPECT_NEAR(static_cast<double>(shares[b]),
                  static_cast<double>(count * sizes[b]) / 138, 1);
    }
  }
}

}  // namespace
}  // namespace trireme
