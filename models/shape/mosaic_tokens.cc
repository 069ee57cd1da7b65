#include "models/shape/mosaic_tokens.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "runtime/core/log.h"

namespace trireme {
namespace {

constexpr double kCenterScale = 0.2;
constexpr double kUsualScale = 1.3;
constexpr double kScaleDeviation = 0.25;
constexpr double kValueDeviation = 0.5;

constexpr double kLeastScale = 0x1p-10;

int64_t WidthOf(int resolution) {
  return 4 + int64_t{resolution} * resolution * resolution;
}

// The scale that is 0.
double MiddleScale(int64_t tokens) {
  return kUsualScale / std::sqrt(static_cast<double>(tokens));
}

}  // namespace

std::vector<float> StandardizeMosaic(std::span<const float> tokens,
                                     int resolution) {
  const int64_t width = WidthOf(resolution);
  const auto count = static_cast<int64_t>(tokens.size());
  CHECK(count > 0 && count % width == 0) << count << " of " << width;
  const double middle = MiddleScale(count / width);
  std::vector<float> standard(tokens.begin(), tokens.end());
  for (int64_t at = 0; at < count; at += width) {
    const double scale = standard[at + 3];
    const auto divide = [&](int64_t first, int64_t end, double by) {
      for (int64_t i = first; i < end; ++i) {
        standard[at + i] = static_cast<float>(standard[at + i] / by);
      }
    };
    divide(0, 3, kCenterScale);
    standard[at + 3] =
        static_cast<float>(std::log(scale / middle) / kScaleDeviation);
    divide(4, width, kValueDeviation * scale);
  }
  return standard;
}

absl::StatusOr<MosaicSdf> MosaicFromStandard(std::span<const float> tokens,
                                             int resolution) {
  const int64_t width = WidthOf(resolution);
  const auto count = static_cast<int64_t>(tokens.size());
  const double middle =
      MiddleScale(std::max<int64_t>(count / width, int64_t{1}));
  std::vector<float> own(tokens.begin(), tokens.end());
  for (int64_t at = 0; at + width <= count; at += width) {
    // What is no number stays none, and is refused below.
    const double scale = std::clamp(
        middle * std::exp(kScaleDeviation * own[at + 3]), kLeastScale, 1.0);
    const auto multiply = [&](int64_t first, int64_t end, double by) {
      for (int64_t i = first; i < end; ++i) {
        own[at + i] = static_cast<float>(own[at + i] * by);
      }
    };
    multiply(0, 3, kCenterScale);
    own[at + 3] = static_cast<float>(scale);
    multiply(4, width, kValueDeviation * scale);
  }
  return MosaicFromTokens(own, resolution);
}

}  // namespace trireme
