#include "models/image/orientation.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "runtime/core/log.h"

namespace trireme {
namespace {

constexpr int kOrientationTag = 0x0112;
constexpr int kShortType = 3;

// Unsigned numbers of a TIFF structure; 0 beyond its end.
class TiffReader {
 public:
  TiffReader(std::string_view bytes, bool big_endian)
      : bytes_(bytes), big_endian_(big_endian) {}

  uint32_t Number(size_t at, size_t size) const {
    if (at > bytes_.size() || size > bytes_.size() - at) return 0;
    uint32_t number = 0;
    for (size_t i = 0; i < size; ++i) {
      const size_t place = big_endian_ ? i : size - 1 - i;
      number = number << 8 | static_cast<uint8_t>(bytes_[at + place]);
    }
    return number;
  }

 private:
  std::string_view bytes_;
  bool big_endian_;
};

}  // namespace

int ExifOrientation(std::string_view app1) {
  constexpr std::string_view kExif("Exif\0\0", 6);
  if (!app1.starts_with(kExif)) return 1;
  const std::string_view tiff = app1.substr(kExif.size());
  if (!tiff.starts_with("II") && !tiff.starts_with("MM")) return 1;
  const TiffReader reader(tiff, tiff.starts_with("MM"));
  // The first directory: a count and 12 bytes a tag.
  const size_t directory = reader.Number(4, 4);
  const uint32_t count = reader.Number(directory, 2);
  for (uint32_t i = 0; i < count; ++i) {
    const size_t entry = directory + 2 + size_t{12} * i;
    if (reader.Number(entry, 2) != kOrientationTag) continue;
    if (reader.Number(entry + 2, 2) != kShortType) return 1;
    const uint32_t value = reader.Number(entry + 8, 2);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

Image Upright(const Image& image, int orientation) {
  CHECK(orientation >= 1 && orientation <= 8) << orientation;
  if (orientation == 1) return image;
  const bool turned = SwapsSides(orientation);
  const bool mirrored_x = orientation == 2 || orientation == 3 ||
                          orientation == 7 || orientation == 8;
  const bool mirrored_y = orientation == 3 || orientation == 4 ||
                          orientation == 6 || orientation == 7;
  Image upright =
      FilledImage(turned ? image.height : image.width,
                  turned ? image.width : image.height, image.channels, 0);
  for (int y = 0; y < upright.height; ++y) {
    for (int x = 0; x < upright.width; ++x) {
      int from_x = turned ? y : x;
      int from_y = turned ? x : y;
      if (mirrored_x) from_x = image.width - 1 - from_x;
      if (mirrored_y) from_y = image.height - 1 - from_y;
      std::copy_n(image.At(from_x, from_y), image.channels, upright.At(x, y));
    }
  }
  return upright;
}

}  // namespace trireme
