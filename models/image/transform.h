// From pictures of any size to what a network sees, and back.

#ifndef TRIREME_MODELS_IMAGE_TRANSFORM_H_
#define TRIREME_MODELS_IMAGE_TRANSFORM_H_

#include <span>

#include "models/image/image.h"

namespace trireme {

// Scales the picture so that its short side is `side`, then keeps the central
// square: [side, side, channels of `image`]. Shrinking averages under a
// triangle two output pixels wide (antialiased), enlarging interpolates
// linearly; one dimension after the other.
Image ResizeToSquare(const Image& image, int side);

// Gray ↔ colour: gray is 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).
// `channels` is 1 or 3.
Image ConvertChannels(const Image& image, int channels);

// Bytes 0…255 to floats −1…1, and [h, w, c] to [c, h, w]. `out` holds
// width·height·channels values.
void ToFloat(const Image& image, std::span<float> out);

// The reverse; values outside −1…1 are clamped, NaN becomes 0.
Image FromFloat(std::span<const float> pixels, int width, int height,
                int channels);

}  // namespace trireme

#endif  // TRIREME_MODELS_IMAGE_TRANSFORM_H_
