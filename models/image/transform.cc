#include "models/image/transform.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "runtime/core/log.h"

namespace trireme {
namespace {

uint8_t ToByte(float value) {
  return static_cast<uint8_t>(std::clamp(value, 0.0F, 255.0F) + 0.5F);
}

}  // namespace

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
  Image image = FilledImage(width, height, channels, 0);
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
