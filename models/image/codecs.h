// The decoders behind decode.h, one per format; same contract.

#ifndef TRIREME_MODELS_IMAGE_CODECS_H_
#define TRIREME_MODELS_IMAGE_CODECS_H_

#include <string_view>

#include "models/image/decode.h"

namespace trireme {

absl::StatusOr<Image> DecodePng(std::string_view bytes,
                                const DecodeLimits& limits);
absl::StatusOr<Image> DecodeJpeg(std::string_view bytes,
                                 const DecodeLimits& limits);
absl::StatusOr<Image> DecodeWebp(std::string_view bytes,
                                 const DecodeLimits& limits);

// Of what they give.
absl::StatusOr<PictureSize> SizeOfPng(std::string_view bytes);
absl::StatusOr<PictureSize> SizeOfJpeg(std::string_view bytes);
absl::StatusOr<PictureSize> SizeOfWebp(std::string_view bytes);

// Checks the size that a file's header claims.
absl::Status CheckImageSize(int64_t width, int64_t height,
                            const DecodeLimits& limits);

}  // namespace trireme

#endif  // TRIREME_MODELS_IMAGE_CODECS_H_
