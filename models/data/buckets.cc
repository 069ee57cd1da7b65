#include "models/data/buckets.h"

#include <algorithm>
#include <tuple>

namespace trireme {
namespace {

// The factor that makes the picture just cover the size.
double ScaleTo(const PictureSize& size, const PictureSize& picture) {
  return std::max(
      static_cast<double>(size.height) / static_cast<double>(picture.height),
      static_cast<double>(size.width) / static_cast<double>(picture.width));
}

// Pixels of the size times the share of the picture that it shows.
double Shown(const PictureSize& size, const PictureSize& picture) {
  const double scale = ScaleTo(size, picture);
  const auto pixels = static_cast<double>(size.pixels());
  const double scaled = scale * scale * static_cast<double>(picture.height) *
                        static_cast<double>(picture.width);
  return pixels * (pixels / scaled);
}

}  // namespace

void SortSizes(std::vector<PictureSize>& sizes) {
  std::sort(
      sizes.begin(), sizes.end(),
      [](const PictureSize& a, const PictureSize& b) {
        // Of as many pixels, the squarest is the one whose longer side is
        // shortest.
        return std::tuple(-a.pixels(), std::max(a.height, a.width), -a.height) <
               std::tuple(-b.pixels(), std::max(b.height, b.width), -b.height);
      });
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
}

std::vector<PictureSize> SizesOfArea(int64_t side, int64_t step,
                                     double max_ratio) {
  std::vector<PictureSize> sizes;
  for (int64_t width = step; width * step <= side * side; width += step) {
    const int64_t height = side * side / width / step * step;
    const double ratio = static_cast<double>(std::max(height, width)) /
                         static_cast<double>(std::min(height, width));
    if (ratio > max_ratio) continue;
    sizes.push_back({height, width});
    sizes.push_back({width, height});
  }
  SortSizes(sizes);
  return sizes;
}

std::optional<int32_t> BucketOf(std::span<const PictureSize> sizes,
                                const PictureSize& picture, bool enlarge) {
  std::optional<int32_t> shows_most, least_enlarged;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const auto bucket = static_cast<int32_t>(i);
    const double scale = ScaleTo(sizes[i], picture);
    if (!least_enlarged.has_value() ||
        scale < ScaleTo(sizes[*least_enlarged], picture)) {
      least_enlarged = bucket;
    }
    if (scale > 1) continue;
    if (!shows_most.has_value() ||
        Shown(sizes[i], picture) > Shown(sizes[*shows_most], picture)) {
      shows_most = bucket;
    }
  }
  if (shows_most.has_value() || !enlarge) return shows_most;
  return least_enlarged;
}

}  // namespace trireme
