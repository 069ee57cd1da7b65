// Pictures side by side in one, without names or gaps.

#ifndef TRIREME_MODELS_IMAGE_TILE_H_
#define TRIREME_MODELS_IMAGE_TILE_H_

#include <span>

#include "models/image/image.h"

namespace trireme {

// `columns` in a row, which divides their number; at least one, and all of one
// size and as many channels (CHECKed).
Image TilePictures(std::span<const Image> pictures, int columns);

}  // namespace trireme

#endif  // TRIREME_MODELS_IMAGE_TILE_H_
