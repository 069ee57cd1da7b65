// From pictures to what a network sees, and back. Pure functions; any thread.

#ifndef TRIREME_MODELS_IMAGE_TRANSFORM_H_
#define TRIREME_MODELS_IMAGE_TRANSFORM_H_

#include <span>

#include "models/image/image.h"

namespace trireme {

// Bytes 0…255 to floats −1…1, and [h, w, c] to [c, h, w]. `out` holds
// width·height·channels values.
void ToFloat(const Image& image, std::span<float> out);

// The reverse; values outside −1…1 are clamped, NaN becomes 0.
Image FromFloat(std::span<const float> pixels, int width, int height,
                int channels);

}  // namespace trireme

#endif  // TRIREME_MODELS_IMAGE_TRANSFORM_H_
