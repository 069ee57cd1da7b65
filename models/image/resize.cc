#include "models/image/resize.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/core/log.h"

namespace trireme {
namespace {

// A stretch of one side of the source, in pixels.
struct Range {
  double begin;
  double length;
};

// The weights that make one target pixel of source pixels first, first+1, ...
struct Taps {
  int first = 0;
  std::vector<float> weights;
};

// Taps of `target` pixels that cover `range` of a side of `source` pixels.
std::vector<Taps> TriangleTaps(int source, Range range, int target) {
  const double scale = range.length / target;
  const double radius = std::max(1.0, scale);
  std::vector<Taps> taps(target);
  for (int i = 0; i < target; ++i) {
    const double centre = range.begin + (i + 0.5) * scale;
    const int first = std::clamp(static_cast<int>(std::floor(centre - radius)),
                                 0, source - 1);
    const int end = std::clamp(static_cast<int>(std::ceil(centre + radius)),
                               first + 1, source);
    std::vector<double> weights;
    double sum = 0;
    for (int j = first; j < end; ++j) {
      const double distance = std::abs(j + 0.5 - centre) / radius;
      weights.push_back(std::max(0.0, 1.0 - distance));
      sum += weights.back();
    }
    CHECK_GT(sum, 0.0);
    taps[i].first = first;
    for (const double weight : weights) {
      taps[i].weights.push_back(static_cast<float>(weight / sum));
    }
  }
  return taps;
}

Image Resample(const Image& image, Range columns, Range rows, int width,
               int height) {
  CHECK(IsValid(image));
  CHECK(width > 0 && height > 0) << width << "x" << height;
  const int channels = image.channels;
  const std::vector<Taps> x_taps = TriangleTaps(image.width, columns, width);
  const std::vector<Taps> y_taps = TriangleTaps(image.height, rows, height);
  const int first_row = y_taps.front().first;
  const int end_row =
      y_taps.back().first + static_cast<int>(y_taps.back().weights.size());

  // Across, for the rows that are needed: [rows, width, channels].
  const size_t row_length = static_cast<size_t>(width) * channels;
  std::vector<float> narrow(row_length * (end_row - first_row));
  for (int y = first_row; y < end_row; ++y) {
    float* out = narrow.data() + row_length * (y - first_row);
    for (const Taps& taps : x_taps) {
      const uint8_t* in = image.At(taps.first, y);
      for (int c = 0; c < channels; ++c) {
        float sum = 0;
        for (size_t j = 0; j < taps.weights.size(); ++j) {
          sum += taps.weights[j] * in[j * channels + c];
        }
        *out++ = sum;
      }
    }
  }

  // Down.
  Image result = FilledImage(width, height, channels, 0);
  std::vector<float> sums(row_length);
  for (int y = 0; y < height; ++y) {
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (size_t j = 0; j < y_taps[y].weights.size(); ++j) {
      const float weight = y_taps[y].weights[j];
      const float* in =
          narrow.data() + row_length * (y_taps[y].first - first_row + j);
      for (size_t i = 0; i < row_length; ++i) sums[i] += weight * in[i];
    }
    uint8_t* out = result.At(0, y);
    for (size_t i = 0; i < row_length; ++i) {
      out[i] = static_cast<uint8_t>(std::clamp(sums[i] + 0.5f, 0.0f, 255.0f));
    }
  }
  return result;
}

}  // namespace

Image Resize(const Image& image, int width, int height) {
  if (width == image.width && height == image.height) return image;
  return Resample(image, {0, static_cast<double>(image.width)},
                  {0, static_cast<double>(image.height)}, width, height);
}

Image ResizeAndCrop(const Image& image, int width, int height) {
  if (width == image.width && height == image.height) return image;
  CHECK(width > 0 && height > 0) << width << "x" << height;
  const double scale = std::min(static_cast<double>(image.width) / width,
                                static_cast<double>(image.height) / height);
  const Range columns = {(image.width - scale * width) / 2, scale * width};
  const Range rows = {(image.height - scale * height) / 2, scale * height};
  return Resample(image, columns, rows, width, height);
}

}  // namespace trireme
