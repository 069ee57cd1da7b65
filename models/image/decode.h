// Decodes PNG, JPEG and WebP files from memory.
//
// The input is hostile: whatever its bytes, the result is a picture within the
// limits or an error; limits are applied to the header before pixels are
// allocated. Damaged and truncated files are errors, never half a picture.
// The file's first bytes decide its format, not its name.
//
// Gray files give 1 channel, all others 3. Transparent pixels are laid over
// white, 16-bit samples are rounded to 8, CMYK becomes RGB; of an animation
// nothing is decoded (Unimplemented). Any thread.

#ifndef TRIREME_MODELS_IMAGE_DECODE_H_
#define TRIREME_MODELS_IMAGE_DECODE_H_

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/image/image.h"
#include "models/image/picture_size.h"

namespace trireme {

struct DecodeLimits {
  int64_t max_bytes = int64_t{64} << 20;
  int max_side = 16384;
  int64_t max_pixels = int64_t{1} << 26;
};

enum class ImageFormat { kUnknown, kPng, kJpeg, kWebp };

ImageFormat SniffImageFormat(std::string_view bytes);

// Errors: InvalidArgument (unknown format), ResourceExhausted (over a limit),
// DataLoss (damaged), Unimplemented. The caller adds the file's name.
absl::StatusOr<Image> DecodeImage(std::string_view bytes,
                                  const DecodeLimits& limits = {});

// The size of what DecodeImage would give, from the file's header: its first
// bytes are enough where that lies in them whole. Errors: as DecodeImage; a
// header that is cut off is DataLoss.
absl::StatusOr<PictureSize> ReadImageSize(std::string_view bytes,
                                          const DecodeLimits& limits = {});

}  // namespace trireme

#endif  // TRIREME_MODELS_IMAGE_DECODE_H_
