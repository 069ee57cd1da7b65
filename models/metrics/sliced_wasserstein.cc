#include "models/metrics/sliced_wasserstein.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Sums in lanes, so that the compiler may vectorise without reordering.
float Dot(const float* a, const float* b, int64_t d) {
  constexpr int kLanes = 16;
  std::array<float, kLanes> sums{};
  int64_t i = 0;
  for (; i + kLanes <= d; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      sums[lane] += a[i + lane] * b[i + lane];
    }
  }
  float sum = 0;
  for (const float lane : sums) sum += lane;
  for (; i < d; ++i) sum += a[i] * b[i];
  return sum;
}

void ProjectAndSort(std::span<const float> x, std::span<const float> direction,
                    std::vector<float>& projections) {
  const int64_t d = static_cast<int64_t>(direction.size());
  for (size_t i = 0; i < projections.size(); ++i) {
    projections[i] = Dot(x.data() + i * d, direction.data(), d);
  }
  std::sort(projections.begin(), projections.end());
}

bool AllFinite(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(),
                     [](float value) { return std::isfinite(value); });
}

}  // namespace

absl::StatusOr<double> SlicedWasserstein(
    std::span<const float> x, std::span<const float> y, int64_t d,
    const SlicedWassersteinOptions& options) {
  CHECK_GT(options.projections, 0);
  if (d < 1 || x.empty() || x.size() != y.size() || x.size() % d != 0) {
    return InvalidArgument(
        "sets of {} and {} values, expected equally many vectors of {} each",
        x.size(), y.size(), d);
  }
  // Sorting is not defined for what is not a number.
  if (!AllFinite(x) || !AllFinite(y)) {
    return InvalidArgument("a set holds values that are not finite");
  }
  const size_t n = x.size() / d;
  std::vector<float> direction(d);
  std::vector<float> x_projections(n);
  std::vector<float> y_projections(n);
  double sum = 0;
  for (int i = 0; i < options.projections; ++i) {
    const RandomStream stream({.seed = options.seed,
                               .sample = static_cast<uint64_t>(i),
                               .purpose = RandomPurpose::kMetric});
    stream.FillNormal(0, direction);
    double squares = 0;
    for (const float value : direction) squares += double{value} * value;
    const auto scale = static_cast<float>(1 / std::sqrt(squares));
    for (float& value : direction) value *= scale;
    ProjectAndSort(x, direction, x_projections);
    ProjectAndSort(y, direction, y_projections);
    double distance = 0;
    for (size_t j = 0; j < n; ++j) {
      const double difference = double{x_projections[j]} - y_projections[j];
      distance += difference * difference;
    }
    sum += distance / static_cast<double>(n);
  }
  return std::sqrt(sum / options.projections);
}

}  // namespace trireme
