// The height and width of a picture.

#ifndef TRIREME_MODELS_IMAGE_PICTURE_SIZE_H_
#define TRIREME_MODELS_IMAGE_PICTURE_SIZE_H_

#include <cstdint>

namespace trireme {

// In pixels; of latents in theirs.
struct PictureSize {
  int64_t height = 0;
  int64_t width = 0;

  int64_t pixels() const { return height * width; }
  bool operator==(const PictureSize&) const = default;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_IMAGE_PICTURE_SIZE_H_
