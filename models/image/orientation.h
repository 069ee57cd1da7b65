// The orientation that cameras write beside the pixels (EXIF 2.32, tag 0x0112;
// 4.6.4, "Orientation"): phones store what the sensor saw and say how it was
// held.

#ifndef TRIREME_MODELS_IMAGE_ORIENTATION_H_
#define TRIREME_MODELS_IMAGE_ORIENTATION_H_

#include <string_view>

#include "models/image/image.h"

namespace trireme {

// 1 to 8 from the content of a JPEG's APP1 segment. 1, upright, where that is
// no EXIF, is broken or says nothing.
int ExifOrientation(std::string_view app1);

// Whether it makes rows of what the file has as columns.
constexpr bool SwapsSides(int orientation) { return orientation >= 5; }

// The picture as it is to be looked at.
Image Upright(const Image& image, int orientation);

}  // namespace trireme

#endif  // TRIREME_MODELS_IMAGE_ORIENTATION_H_
