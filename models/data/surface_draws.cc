#include "models/data/surface_draws.h"

#include <algorithm>
#include <numeric>
#include <span>

#include "models/shape/mosaic_sdf.h"
#include "models/shape/vector3.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr uint16_t kSurfaceStream = 1;
constexpr uint16_t kQueryStream = 2;
constexpr int64_t kApartAmong = 4;

RandomStream StreamOf(const Sample& sample, uint16_t layer) {
  RandomKey key = sample.draw.value_or(RandomKey());
  key.layer = layer;
  return RandomStream(key);
}

// `count` different ones of the numbers below `size`, in an order of chance.
std::vector<int32_t> Choose(const RandomStream& random, int64_t size,
                            int64_t count) {
  std::vector<int32_t> chosen(size);
  std::iota(chosen.begin(), chosen.end(), 0);
  for (int64_t i = 0; i < count; ++i) {
    const auto rest = static_cast<uint64_t>(size - i);
    std::swap(chosen[i],
              chosen[i + static_cast<int64_t>(random.Bits(i) % rest)]);
  }
  chosen.resize(count);
  return chosen;
}

// Brings `apart` of the first that lie far from one another to the front.
void PutApartFirst(std::span<const float> points, int64_t apart,
                   std::vector<int32_t>& chosen) {
  const auto among = static_cast<int64_t>(
      std::min(chosen.size(), static_cast<size_t>(kApartAmong * apart)));
  std::vector<Vector3f> candidates;
  for (int64_t i = 0; i < among; ++i) {
    const float* at = &points[3 * chosen[i]];
    candidates.push_back({at[0], at[1], at[2]});
  }
  std::vector<int32_t> ordered;
  std::vector<bool> taken(among, false);
  for (const int32_t i : FarthestPoints(candidates, apart)) {
    ordered.push_back(chosen[i]);
    taken[i] = true;
  }
  for (int64_t i = 0; i < among; ++i) {
    if (!taken[i]) ordered.push_back(chosen[i]);
  }
  std::copy(ordered.begin(), ordered.end(), chosen.begin());
}

}  // namespace

absl::StatusOr<std::vector<float>> DrawSurface(const Sample& sample,
                                               int64_t points, int64_t apart) {
  const auto there = static_cast<int64_t>(sample.surface_points.size()) / 3;
  if (points > there || sample.surface_normals.size() / 3 != size_t(there)) {
    return InvalidArgument(
        "found {}, expected at most the {} points with normals that {} has",
        points, there, sample.key);
  }
  std::vector<int32_t> chosen =
      Choose(StreamOf(sample, kSurfaceStream), there, points);
  PutApartFirst(sample.surface_points, apart, chosen);
  std::vector<float> rows;
  rows.reserve(6 * points);
  for (const int32_t i : chosen) {
    for (const auto* columns :
         {&sample.surface_points, &sample.surface_normals}) {
      rows.insert(rows.end(), columns->begin() + 3 * i,
                  columns->begin() + 3 * (i + 1));
    }
  }
  return rows;
}

absl::StatusOr<std::vector<float>> DrawQueries(const Sample& sample,
                                               int64_t queries) {
  const int64_t on_surface = queries / 4, near = queries / 2;
  if (sample.surface_normals.empty() || sample.near_distances.empty() ||
      sample.uniform_distances.empty()) {
    return InvalidArgument(
        "found {}, expected none of {}, which has no distances", queries,
        sample.key);
  }
  const RandomStream random = StreamOf(sample, kQueryStream);
  std::vector<float> rows;
  rows.reserve(7 * queries);
  for (int64_t i = 0; i < queries; ++i) {
    const auto draw = [&](const std::vector<float>& values, int64_t width) {
      const uint64_t count = values.size() / width;
      return values.begin() +
             width * static_cast<int64_t>(random.Bits(i) % count);
    };
    if (i < on_surface) {
      const auto point = draw(sample.surface_points, 3);
      const auto normal = sample.surface_normals.begin() +
                          (point - sample.surface_points.begin());
      rows.insert(rows.end(), point, point + 3);
      rows.push_back(0);
      rows.insert(rows.end(), normal, normal + 3);
    } else {
      const auto point = draw(i < on_surface + near ? sample.near_distances
                                                    : sample.uniform_distances,
                              4);
      rows.insert(rows.end(), point, point + 4);
      rows.insert(rows.end(), 3, 0.0F);
    }
  }
  return rows;
}

}  // namespace trireme
