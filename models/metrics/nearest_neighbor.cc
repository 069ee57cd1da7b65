#include "models/metrics/nearest_neighbor.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Sums in lanes, so that the compiler may vectorise without reordering.
float SquaredDistance(const float* a, const float* b, int64_t d) {
  constexpr int kLanes = 16;
  std::array<float, kLanes> sums{};
  int64_t i = 0;
  for (; i + kLanes <= d; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float difference = a[i + lane] - b[i + lane];
      sums[lane] += difference * difference;
    }
  }
  float sum = 0;
  for (const float lane : sums) sum += lane;
  for (; i < d; ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum;
}

// `nearest` holds (distance, index), nearest first.
int32_t MajorityClass(const std::vector<std::pair<float, size_t>>& nearest,
                      std::span<const int32_t> class_ids) {
  int32_t winner = -1;
  int64_t most_votes = 0;
  for (const auto& [distance, index] : nearest) {
    const int32_t candidate = class_ids[index];
    const int64_t votes = std::count_if(
        nearest.begin(), nearest.end(), [&](const auto& neighbor) {
          return class_ids[neighbor.second] == candidate;
        });
    if (votes > most_votes) {
      winner = candidate;
      most_votes = votes;
    }
  }
  return winner;
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> NearestNeighborClasses(
    const LabelledVectors& references, std::span<const float> queries,
    int64_t d, int k) {
  CHECK_GT(k, 0);
  const size_t n = references.class_ids.size();
  if (d < 1 || references.values.size() != n * d || queries.size() % d != 0) {
    return InvalidArgument(
        "{} values of {} references and {} values of queries, expected vectors "
        "of {}",
        references.values.size(), n, queries.size(), d);
  }
  if (n < static_cast<size_t>(k)) {
    return InvalidArgument("{} references, expected at least k = {}", n, k);
  }
  std::vector<int32_t> classes;
  std::vector<std::pair<float, size_t>> distances(n);
  for (size_t q = 0; q < queries.size(); q += d) {
    for (size_t i = 0; i < n; ++i) {
      const float distance = SquaredDistance(
          queries.data() + q, references.values.data() + i * d, d);
      if (!std::isfinite(distance)) {
        return InvalidArgument("query {} or reference {} is not finite", q / d,
                               i);
      }
      distances[i] = {distance, i};
    }
    std::vector<std::pair<float, size_t>> nearest(k);
    std::partial_sort_copy(distances.begin(), distances.end(), nearest.begin(),
                           nearest.end());
    classes.push_back(MajorityClass(nearest, references.class_ids));
  }
  return classes;
}

absl::StatusOr<double> NearestNeighborAccuracy(
    const LabelledVectors& references, const LabelledVectors& queries,
    int64_t d, int k) {
  ASSIGN_OR_RETURN(const std::vector<int32_t> classes,
                   NearestNeighborClasses(references, queries.values, d, k));
  if (classes.empty() || classes.size() != queries.class_ids.size()) {
    return InvalidArgument(
        "{} queries with {} classes, expected equally many and at least one",
        classes.size(), queries.class_ids.size());
  }
  int64_t right = 0;
  for (size_t i = 0; i < classes.size(); ++i) {
    right += classes[i] == queries.class_ids[i];
  }
  return static_cast<double>(right) / static_cast<double>(classes.size());
}

}  // namespace trireme
