// Class accuracy of generated pictures, judged by the k nearest real pictures
// in pixel space. Alone it misleads: a generator of class means scores 100 %;
// read it beside the sliced Wasserstein distance.

#ifndef TRIREME_MODELS_METRICS_NEAREST_NEIGHBOR_H_
#define TRIREME_MODELS_METRICS_NEAREST_NEIGHBOR_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace trireme {

// Vectors with their classes: values[n, d], class_ids[n].
struct LabelledVectors {
  std::span<const float> values;
  std::span<const int32_t> class_ids;
};

// For each of queries[m, d] the class that most of the k nearest references
// (Euclidean) have; among classes with as many votes the one with the nearest
// member. O(m * n * d). Errors: sizes that do not fit, fewer than k references,
// queries that are not finite.
absl::StatusOr<std::vector<int32_t>> NearestNeighborClasses(
    const LabelledVectors& references, std::span<const float> queries,
    int64_t d, int k);

// The share of queries whose class that is.
absl::StatusOr<double> NearestNeighborAccuracy(
    const LabelledVectors& references, const LabelledVectors& queries,
    int64_t d, int k = 3);

}  // namespace trireme

#endif  // TRIREME_MODELS_METRICS_NEAREST_NEIGHBOR_H_
