#include "trainer/metrics/memory_deviation.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace trireme {

namespace {

constexpr double kLeastBytes = 1 << 20;

}  // namespace

MemoryDeviation LargestMemoryDeviation(const MemoryStatistics& measured,
                                       const MemoryStatistics& predicted,
                                       MemoryPrediction kind,
                                       Control& control) {
  std::vector<double> shares(
      static_cast<size_t>(control.size()) * kNumMemoryCategories, 0.0);
  double* own =
      &shares[static_cast<size_t>(control.rank()) * kNumMemoryCategories];
  for (int i = 0; i < kNumMemoryCategories; ++i) {
    const auto expected = static_cast<double>(predicted.peak_by_category[i]);
    const auto found = static_cast<double>(measured.peak_by_category[i]);
    const double excess = found - expected;
    own[i] = (kind == MemoryPrediction::kBound ? std::max(excess, 0.0)
                                               : std::abs(excess)) /
             std::max({expected, 1e-3 * predicted.peak_bytes, kLeastBytes});
  }
  control.Max(std::span(shares), "memory deviations");
  const auto worst = std::max_element(shares.begin(), shares.end());
  const auto at = static_cast<int>(worst - shares.begin());
  return {.share = *worst,
          .rank = at / kNumMemoryCategories,
          .category = static_cast<MemoryCategory>(at % kNumMemoryCategories)};
}

}  // namespace trireme
