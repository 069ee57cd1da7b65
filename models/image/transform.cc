#include "models/image/transform.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "runtime/core/log.h"

namespace trireme {
namespace {

// The input samples that one output sample averages, weights summing to 1.
struct Window {
  int first = 0;
  std::vector<float> weights;
};

// Windows of the outputs [offset, offset + count) of a line of `in` samples
// scaled to in·scale.
std::vector<Window> Windows(int in, double scale, double offset, int count) {
  // A triangle that is one *output* pixel in radius when shrinking, one input
  // pixel when enlarging.
  const double radius = std::max(1.0, 1.0 / scale);
  std::vector<Window> windows(count);
  for (int i = 0; i < count; ++i) {
    const double centre = (i + offset + 0.5) / scale - 0.5;
    const int first =
        std::clamp(static_cast<int>(std::ceil(centre - radius)), 0, in - 1);
    const int last = std::clamp(static_cast<int>(std::floor(centre + radius)),
                                first, in - 1);
    Window& window = windows[i];
    window.first = first;
    double sum = 0;
    for (int j = first; j <= last; ++j) {
      const double weight = std::max(0.0, 1 - std::abs(j - centre) / radius);
      window.weights.push_back(static_cast<float>(weight));
      sum += weight;
    }
    if (sum <= 0) {
      // Beyond the edge: repeat the nearest sample.
      window.weights.assign(1, 1.0F);
      continue;
    }
    for (float& weight : window.weights) {
      weight = static_cast<float>(weight / sum);
    }
  }
  return windows;
}

uint8_t ToByte(float value) {
  return static_cast<uint8_t>(std::clamp(value, 0.0F, 255.0F) + 0.5F);
}

}  // namespace

Image ResizeToSquare(const Image& image, int side) {
  CHECK(image.width > 0 && image.height > 0 && side > 0)
      << image.width << "x" << image.height << " to " << side;
  if (image.width == side && image.height == side) return image;
  const int short_side = std::min(image.width, image.height);
  const double scale = static_cast<double>(side) / short_side;
  const std::vector<Window> columns =
      Windows(image.width, scale, (image.width * scale - side) / 2, side);
  const std::vector<Window> rows =
      Windows(image.height, scale, (image.height * scale - side) / 2, side);
  const int c = image.channels;
  // Only the rows that the crop uses are made narrow.
  const int first_row = rows.front().first;
  const int last_row =
      rows.back().first + static_cast<int>(rows.back().weights.size()) - 1;
  const size_t line = static_cast<size_t>(side) * c;
  std::vector<float> narrow((last_row - first_row + 1) * line);
  for (int y = first_row; y <= last_row; ++y) {
    float* out = narrow.data() + (y - first_row) * line;
    for (int x = 0; x < side; ++x, out += c) {
      const uint8_t* in = image.Pixel(columns[x].first, y);
      for (const float weight : columns[x].weights) {
        for (int k = 0; k < c; ++k) out[k] += weight * in[k];
        in += c;
      }
    }
  }
  Image result(side, side, c);
  std::vector<float> sums(line);
  for (int y = 0; y < side; ++y) {
    std::fill(sums.begin(), sums.end(), 0.0F);
    const float* in = narrow.data() + (rows[y].first - first_row) * line;
    for (const float weight : rows[y].weights) {
      for (size_t i = 0; i < line; ++i) sums[i] += weight * in[i];
      in += line;
    }
    std::transform(sums.begin(), sums.end(), result.Pixel(0, y), ToByte);
  }
  return result;
}

Image ConvertChannels(const Image& image, int channels) {
  CHECK(channels == 1 || channels == 3) << channels;
  if (image.channels == channels) return image;
  Image result(image.width, image.height, channels);
  const size_t count = static_cast<size_t>(image.width) * image.height;
  for (size_t i = 0; i < count; ++i) {
    if (channels == 3) {
      std::fill_n(result.pixels.begin() + 3 * i, 3, image.pixels[i]);
    } else {
      const uint8_t* in = image.pixels.data() + 3 * i;
      result.pixels[i] =
          ToByte(0.299F * in[0] + 0.587F * in[1] + 0.114F * in[2]);
    }
  }
  return result;
}

void ToFloat(const Image& image, std::span<float> out) {
  CHECK_EQ(out.size(), image.pixels.size());
  const size_t plane = static_cast<size_t>(image.width) * image.height;
  for (int k = 0; k < image.channels; ++k) {
    for (size_t i = 0; i < plane; ++i) {
      out[k * plane + i] =
          image.pixels[i * image.channels + k] * (2.0F / 255) - 1;
    }
  }
}

Image FromFloat(std::span<const float> pixels, int width, int height,
                int channels) {
  Image image(width, height, channels);
  CHECK_EQ(pixels.size(), image.pixels.size());
  const size_t plane = static_cast<size_t>(width) * height;
  for (int k = 0; k < channels; ++k) {
    for (size_t i = 0; i < plane; ++i) {
      const float value = pixels[k * plane + i];
      image.pixels[i * channels + k] =
          std::isnan(value) ? 0 : ToByte((value + 1) * 127.5F);
    }
  }
  return image;
}

}  // namespace trireme
