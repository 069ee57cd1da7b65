#include "models/shape/sharp_edges.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "runtime/core/log.h"

namespace trireme {
namespace {

constexpr double kLeastLength = 0.5;
constexpr double kCurveCosine = 0.75;   // 41°
constexpr double kWallCosine = -0.866;  // 150°

using Place = std::array<int64_t, 3>;

class Field {
 public:
  Field(std::span<const float> distances, int64_t n, float level)
      : distances_(distances), n_(n), level_(level) {}

  Place Of(int64_t cell) const {
    return {cell % n_, cell / n_ % n_, cell / (n_ * n_)};
  }
  bool Has(const Place& place) const {
    return std::all_of(place.begin(), place.end(),
                       [this](int64_t i) { return i >= 0 && i < n_; });
  }
  bool Inside(const Place& place) const { return At(place) < level_; }

  // False where there is no direction to speak of.
  bool DirectionAt(const Place& place, std::array<double, 3>* direction) const {
    double squares = 0;
    for (int axis = 0; axis < 3; ++axis) {
      Place before = place, after = place;
      before[axis] = std::max<int64_t>(place[axis] - 1, 0);
      after[axis] = std::min(place[axis] + 1, n_ - 1);
      const double cells =
          static_cast<double>(std::max<int64_t>(after[axis] - before[axis], 1));
      (*direction)[axis] =
          (At(after) - At(before)) / (cells * 2.0 / static_cast<double>(n_));
      squares += (*direction)[axis] * (*direction)[axis];
    }
    const double length = std::sqrt(squares);
    for (double& part : *direction) part /= length;
    return length >= kLeastLength;
  }

 private:
  float At(const Place& place) const {
    return distances_[(place[2] * n_ + place[1]) * n_ + place[0]];
  }

  std::span<const float> distances_;
  int64_t n_;
  float level_;
};

bool AtSharpEdge(const Field& field, const Place& place) {
  std::array<double, 3> own, other;
  if (!field.DirectionAt(place, &own)) return false;
  for (int64_t i = 0; i < 27; ++i) {
    const Place next = {place[0] + i % 3 - 1, place[1] + i / 3 % 3 - 1,
                        place[2] + i / 9 - 1};
    if (!field.Has(next) || field.Inside(next) != field.Inside(place) ||
        !field.DirectionAt(next, &other)) {
      continue;
    }
    const double cosine =
        own[0] * other[0] + own[1] * other[1] + own[2] * other[2];
    if (cosine < kCurveCosine && cosine > kWallCosine) return true;
  }
  return false;
}

}  // namespace

std::vector<bool> AtSharpEdges(std::span<const float> distances, int64_t n,
                               float level, std::span<const int64_t> cells) {
  CHECK_EQ(static_cast<int64_t>(distances.size()), n * n * n);
  const Field field(distances, n, level);
  std::vector<bool> sharp;
  for (const int64_t cell : cells) {
    sharp.push_back(AtSharpEdge(field, field.Of(cell)));
  }
  return sharp;
}

}  // namespace trireme
