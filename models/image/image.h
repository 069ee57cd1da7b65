// An 8-bit picture in memory, and the two conversions between gray and colour.
// Pure values; any thread.

#ifndef TRIREME_MODELS_IMAGE_IMAGE_H_
#define TRIREME_MODELS_IMAGE_IMAGE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace trireme {

struct Image {
  int width = 0;
  int height = 0;
  int channels = 0;  // 1 (gray) or 3 (RGB)
  // [height, width, channels], rows from the top.
  std::vector<uint8_t> pixels;

  uint8_t* At(int x, int y) { return pixels.data() + Offset(x, y); }
  const uint8_t* At(int x, int y) const { return pixels.data() + Offset(x, y); }

  bool operator==(const Image&) const = default;

 private:
  size_t Offset(int x, int y) const {
    return (static_cast<size_t>(y) * width + x) * channels;
  }
};

// A picture of one value.
Image FilledImage(int width, int height, int channels, uint8_t value);

// True when the sizes are positive, channels is 1 or 3 and pixels has the
// length that they say.
bool IsValid(const Image& image);

// The picture with 1 or 3 channels. Gray of RGB is luma by ITU-R BT.601
// (0.299, 0.587, 0.114), as JPEG defines it; RGB of gray repeats it.
Image WithChannels(const Image& image, int channels);

}  // namespace trireme

#endif  // TRIREME_MODELS_IMAGE_IMAGE_H_
