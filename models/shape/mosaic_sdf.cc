#include "models/shape/mosaic_sdf.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "models/shape/mosaic_cube.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Cells of the lookup a side: about as large as a cube of a thousand.
constexpr int kLookupCells = 32;

int CellOf(float at) {
  // Before the conversion, as a generator's cubes may lie anywhere.
  return static_cast<int>(
      std::clamp((at + 1) / 2 * kLookupCells, 0.0f, kLookupCells - 1.0f));
}

}  // namespace

std::vector<float> MosaicTokens(const MosaicSdf& mosaic) {
  std::vector<float> tokens;
  const int64_t values = mosaic.values_of_one();
  for (int64_t i = 0; i < mosaic.size(); ++i) {
    const Vector3f& center = mosaic.centers[i];
    tokens.insert(tokens.end(),
                  {center.x, center.y, center.z, mosaic.scales[i]});
    const auto first = mosaic.values.begin() + i * values;
    tokens.insert(tokens.end(), first, first + values);
  }
  return tokens;
}

absl::StatusOr<MosaicSdf> MosaicFromTokens(std::span<const float> tokens,
                                           int resolution) {
  CHECK_GE(resolution, 2);
  MosaicSdf mosaic{.resolution = resolution};
  const int64_t values = mosaic.values_of_one();
  const auto count = static_cast<int64_t>(tokens.size());
  if (count == 0 || count % (4 + values) != 0) {
    return InvalidArgument("{} numbers, expected a multiple of {}", count,
                           4 + values);
  }
  for (int64_t at = 0; at < count; at += 4 + values) {
    const auto token = tokens.subspan(at, 4 + values);
    if (!std::all_of(token.begin(), token.end(),
                     [](float x) { return std::isfinite(x); }) ||
        token[3] <= 0) {
      return InvalidArgument(
          "token {}: found a scale of {:g} or a number that is not finite",
          mosaic.size(), token[3]);
    }
    mosaic.centers.push_back({token[0], token[1], token[2]});
    mosaic.scales.push_back(token[3]);
    mosaic.values.insert(mosaic.values.end(), token.begin() + 4, token.end());
  }
  return mosaic;
}

MosaicField::MosaicField(const MosaicSdf& mosaic)
    : mosaic_(&mosaic),
      cells_(kLookupCells),
      begins_(kLookupCells * kLookupCells * kLookupCells + 1),
      nearest_(mosaic.centers) {
  // Calls take(cell, cube) for each cell that a cube touches, cube by cube.
  const auto for_each = [&](const auto& take) {
    for (int64_t i = 0; i < mosaic.size(); ++i) {
      const Vector3f& p = mosaic.centers[i];
      const float s = mosaic.scales[i];
      for (int z = CellOf(p.z - s); z <= CellOf(p.z + s); ++z) {
        for (int y = CellOf(p.y - s); y <= CellOf(p.y + s); ++y) {
          for (int x = CellOf(p.x - s); x <= CellOf(p.x + s); ++x) {
            take((z * cells_ + y) * cells_ + x, static_cast<int32_t>(i));
          }
        }
      }
    }
  };
  for_each([&](int cell, int32_t) { ++begins_[cell + 1]; });
  std::partial_sum(begins_.begin(), begins_.end(), begins_.begin());
  cubes_.resize(begins_.back());
  std::vector<int32_t> next(begins_.begin(), begins_.end() - 1);
  for_each([&](int cell, int32_t cube) { cubes_[next[cell]++] = cube; });
}

std::span<const int32_t> MosaicField::Near(const Vector3f& point) const {
  const int cell =
      (CellOf(point.z) * cells_ + CellOf(point.y)) * cells_ + CellOf(point.x);
  return std::span(cubes_).subspan(begins_[cell],
                                   begins_[cell + 1] - begins_[cell]);
}

float MosaicField::At(const Vector3f& point) const {
  double weights = 0;
  double sum = 0;
  for (const int32_t i : Near(point)) {
    if (!IsWithin(*mosaic_, i, point)) continue;
    const CubeSample sample = SampleCube(*mosaic_, i, point);
    weights += sample.weight;
    sum += sample.weight * sample.value;
  }
  if (weights > 0) return static_cast<float>(sum / weights);
  const auto i = static_cast<int32_t>(nearest_.Nearest(point).index);
  const Vector3f& center = mosaic_->centers[i];
  const float s = mosaic_->scales[i];
  const Vector3f border{std::clamp(point.x, center.x - s, center.x + s),
                        std::clamp(point.y, center.y - s, center.y + s),
                        std::clamp(point.z, center.z - s, center.z + s)};
  const auto value = static_cast<float>(SampleCube(*mosaic_, i, border).value);
  return value + std::copysign(Length(point - border), value);
}

void MosaicField::Distances(std::span<const Vector3f> points,
                            std::span<float> values) const {
  CHECK_EQ(points.size(), values.size());
#pragma omp parallel for schedule(dynamic, 256)
  for (size_t i = 0; i < points.size(); ++i) values[i] = At(points[i]);
}

bool MosaicField::Covers(const Vector3f& point) const {
  const auto cubes = Near(point);
  return std::any_of(cubes.begin(), cubes.end(),
                     [&](int32_t i) { return IsWithin(*mosaic_, i, point); });
}

}  // namespace trireme
