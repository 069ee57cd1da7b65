// A picture in memory: 8 bits a channel, rows from the top, channels
// interleaved.

#ifndef TRIREME_MODELS_IMAGE_IMAGE_H_
#define TRIREME_MODELS_IMAGE_IMAGE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace trireme {

struct Image {
  int width = 0;
  int height = 0;
  int channels = 0;             // 1 (gray) or 3 (red, green, blue)
  std::vector<uint8_t> pixels;  // [height, width, channels]

  Image() = default;
  Image(int width, int height, int channels, uint8_t value = 0)
      : width(width),
        height(height),
        channels(channels),
        pixels(static_cast<size_t>(width) * height * channels, value) {}

  uint8_t* Pixel(int x, int y) {
    return pixels.data() + (static_cast<size_t>(y) * width + x) * channels;
  }
  const uint8_t* Pixel(int x, int y) const {
    return pixels.data() + (static_cast<size_t>(y) * width + x) * channels;
  }
};

}  // namespace trireme

#endif  // TRIREME_MODELS_IMAGE_IMAGE_H_
