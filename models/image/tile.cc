#include "models/image/tile.h"

#include <algorithm>

#include "runtime/core/log.h"

namespace trireme {

Image TilePictures(std::span<const Image> pictures, int columns) {
  CHECK(!pictures.empty() && columns > 0);
  const auto count = static_cast<int>(pictures.size());
  CHECK_EQ(count % columns, 0);
  const Image& first = pictures.front();
  Image tiled = FilledImage(columns * first.width,
                            count / columns * first.height, first.channels, 0);
  for (int i = 0; i < count; ++i) {
    const Image& picture = pictures[i];
    CHECK(picture.width == first.width && picture.height == first.height &&
          picture.channels == first.channels);
    for (int y = 0; y < first.height; ++y) {
      std::copy_n(
          picture.At(0, y), first.width * first.channels,
          tiled.At(i % columns * first.width, i / columns * first.height + y));
    }
  }
  return tiled;
}

}  // namespace trireme
