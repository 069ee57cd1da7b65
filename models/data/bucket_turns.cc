#include "models/data/bucket_turns.h"

#include <algorithm>
#include <numeric>

#include "runtime/core/log.h"

namespace trireme {

std::vector<BucketTurn> BucketTurns(std::span<const int64_t> samples,
                                    int64_t batch) {
  CHECK_GE(batch, 1);
  std::vector<BucketTurn> turns;
  uint64_t before = 0;  // in earlier buckets
  for (size_t b = 0; b < samples.size(); ++b) {
    for (int64_t place = 0; place < samples[b]; place += batch) {
      turns.push_back({.bucket = static_cast<int32_t>(b),
                       .place = static_cast<uint64_t>(place),
                       .position = before + static_cast<uint64_t>(place),
                       .samples = std::min(batch, samples[b] - place)});
    }
    before += static_cast<uint64_t>(samples[b]);
  }
  return turns;
}

std::vector<int64_t> ProportionalShares(std::span<const int64_t> sizes,
                                        int64_t count) {
  const int64_t all = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
  CHECK(count >= 0 && count <= all) << count << " of " << all;
  std::vector<int64_t> shares;
  // Rounded down of what all up to a bucket have, so that nothing is lost.
  int64_t up_to = 0, given = 0;
  for (const int64_t size : sizes) {
    up_to += size;
    const auto due = static_cast<int64_t>(static_cast<__int128>(count) * up_to /
                                          std::max<int64_t>(all, 1));
    shares.push_back(due - given);
    given = due;
  }
  return shares;
}

}  // namespace trireme
