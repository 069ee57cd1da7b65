// Scales and crops pictures.
//
// Antialiased bilinear: a triangle filter of radius 1 source pixel when
// enlarging, widened by the scale when reducing, so that every source pixel
// counts. Equal sizes copy exactly. Pure functions; any thread.

#ifndef TRIREME_MODELS_IMAGE_RESIZE_H_
#define TRIREME_MODELS_IMAGE_RESIZE_H_

#include "models/image/image.h"

namespace trireme {

Image Resize(const Image& image, int width, int height);

// Scales so that the picture just covers width x height, then cuts off what
// overhangs at both sides alike.
Image ResizeAndCrop(const Image& image, int width, int height);

}  // namespace trireme

#endif  // TRIREME_MODELS_IMAGE_RESIZE_H_
