#include "models/image/image.h"

#include "runtime/core/log.h"

namespace trireme {

Image FilledImage(int width, int height, int channels, uint8_t value) {
  CHECK(width > 0 && height > 0 && (channels == 1 || channels == 3))
      << width << "x" << height << "x" << channels;
  return Image{width, height, channels,
               std::vector<uint8_t>(
                   static_cast<size_t>(width) * height * channels, value)};
}

bool IsValid(const Image& image) {
  return image.width > 0 && image.height > 0 &&
         (image.channels == 1 || image.channels == 3) &&
         image.pixels.size() ==
             static_cast<size_t>(image.width) * image.height * image.channels;
}

Image WithChannels(const Image& image, int channels) {
  CHECK(IsValid(image));
  CHECK(channels == 1 || channels == 3) << channels;
  if (channels == image.channels) return image;
  Image result = FilledImage(image.width, image.height, channels, 0);
  const size_t count = static_cast<size_t>(image.width) * image.height;
  for (size_t i = 0; i < count; ++i) {
    if (channels == 3) {
      for (int c = 0; c < 3; ++c) result.pixels[3 * i + c] = image.pixels[i];
    } else {
      // The weights in 1/65536; they sum to 65536, so white stays white.
      const uint32_t luma = 19595u * image.pixels[3 * i] +
                            38470u * image.pixels[3 * i + 1] +
                            7471u * image.pixels[3 * i + 2];
      result.pixels[i] = static_cast<uint8_t>((luma + 32768u) >> 16);
    }
  }
  return result;
}

}  // namespace trireme
