#include "models/shape/volume_tokens.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr float kMean = 0.7F;
constexpr float kDeviation = 0.5F;

// By which shapes are thickened.
float HalfCell(int cells) { return 1.0F / static_cast<float>(cells); }
float CutOff(int cells) { return 6 * HalfCell(cells); }

// Calls f(cell, place, at) of each of a volume's tokens' values, in their
// order: the nearest cell of the grid, the place of the value within its token
// and its number. The place is absent of values outside the grid.
template <typename F>
void ForEachValue(const VolumeShape& shape, F&& f) {
  const int64_t n = shape.cells;
  const int64_t side = shape.lattice();
  const int64_t extent = shape.extent();
  int64_t at = 0;
  for (int64_t token = 0; token < shape.tokens(); ++token) {
    const std::array<int64_t, 3> cube = {token % side, token / side % side,
                                         token / (side * side)};
    for (int64_t i = 0; i < shape.token_channels(); ++i, ++at) {
      const std::array<int64_t, 3> place = {i % extent, i / extent % extent,
                                            i / (extent * extent)};
      int64_t cell = 0;
      bool in_grid = true;
      for (int axis = 2; axis >= 0; --axis) {
        const int64_t wanted =
            cube[axis] * shape.patch + place[axis] - shape.overlap;
        const int64_t nearest = std::clamp<int64_t>(wanted, 0, n - 1);
        in_grid = in_grid && wanted == nearest;
        cell = cell * n + nearest;
      }
      f(cell, in_grid ? std::optional(place) : std::nullopt, at);
    }
  }
}

// How much a token counts at one of its places: less towards its sides, where
// others know better.
float WeightAt(const VolumeShape& shape, const std::array<int64_t, 3>& place) {
  float weight = 1;
  for (const int64_t i : place) {
    const int64_t from_side = std::min(i, shape.extent() - 1 - i) + 1;
    weight *= static_cast<float>(
        std::min<int64_t>(from_side, 2 * int64_t{shape.overlap} + 1));
  }
  return weight;
}

}  // namespace

double LeastThickness(int cells) { return 2 * (std::sqrt(3.0) - 1) / cells; }

std::vector<Vector3f> VolumePoints(int cells) {
  std::vector<Vector3f> points;
  const auto centre = [cells](int i) {
    return (2.0F * static_cast<float>(i) + 1.0F) / static_cast<float>(cells) -
           1.0F;
  };
  for (int z = 0; z < cells; ++z) {
    for (int y = 0; y < cells; ++y) {
      for (int x = 0; x < cells; ++x) {
        points.push_back({centre(x), centre(y), centre(z)});
      }
    }
  }
  return points;
}

std::vector<float> VolumeTokens(std::span<const float> distances,
                                const VolumeShape& shape) {
  CHECK_EQ(static_cast<int64_t>(distances.size()), shape.values());
  std::vector<float> tokens(shape.token_values());
  const float cut_off = CutOff(shape.cells);
  const float thicker = HalfCell(shape.cells);
  ForEachValue(shape, [&](int64_t cell, const auto& /*place*/, int64_t at) {
    const float distance = (distances[cell] - thicker) / cut_off;
    tokens[at] = (std::clamp(distance, -1.0F, 1.0F) - kMean) / kDeviation;
  });
  return tokens;
}

absl::StatusOr<VolumeField> VolumeField::FromTokens(
    std::span<const float> tokens, const VolumeShape& shape) {
  if (static_cast<int64_t>(tokens.size()) != shape.token_values()) {
    return InvalidArgument("a volume of {} values, expected {}", tokens.size(),
                           shape.token_values());
  }
  if (!std::all_of(tokens.begin(), tokens.end(),
                   [](float value) { return std::isfinite(value); })) {
    return InvalidArgument("a volume with values that are not finite");
  }
  std::vector<float> distances(shape.values());
  std::vector<float> weights(shape.values());
  const float cut_off = CutOff(shape.cells);
  ForEachValue(shape, [&](int64_t cell, const auto& place, int64_t at) {
    if (!place.has_value()) return;
    const float weight = WeightAt(shape, *place);
    weights[cell] += weight;
    distances[cell] += weight * cut_off *
                       std::clamp(tokens[at] * kDeviation + kMean, -1.0F, 1.0F);
  });
  for (int64_t cell = 0; cell < shape.values(); ++cell) {
    distances[cell] /= weights[cell];
  }
  return VolumeField(shape.cells, std::move(distances));
}

VolumeField VolumeField::FromDistances(int cells,
                                       std::vector<float> distances) {
  CHECK_EQ(static_cast<int64_t>(distances.size()),
           int64_t{cells} * cells * cells);
  return VolumeField(cells, std::move(distances));
}

void VolumeField::Distances(std::span<const Vector3f> points,
                            std::span<float> values) const {
  CHECK_EQ(points.size(), values.size());
  const auto last = static_cast<float>(cells_ - 1);
  for (size_t i = 0; i < points.size(); ++i) {
    std::array<int64_t, 3> low;
    std::array<float, 3> share;  // of the higher cell
    const std::array<float, 3> point = {points[i].x, points[i].y, points[i].z};
    for (int axis = 0; axis < 3; ++axis) {
      const float place =
          std::clamp((point[axis] + 1) / 2 * static_cast<float>(cells_) - 0.5F,
                     0.0F, last);
      low[axis] = std::min(static_cast<int64_t>(place),
                           std::max<int64_t>(cells_ - 2, 0));
      share[axis] = place - static_cast<float>(low[axis]);
    }
    float value = 0;
    for (int corner = 0; corner < 8; ++corner) {
      float weight = 1;
      int64_t cell = 0;
      for (int axis = 2; axis >= 0; --axis) {
        const int high = corner >> axis & 1;
        weight *= high == 1 ? share[axis] : 1 - share[axis];
        cell = cell * cells_ + std::min<int64_t>(low[axis] + high, cells_ - 1);
      }
      value += weight * distances_[cell];
    }
    values[i] = value;
  }
}

}  // namespace trireme
