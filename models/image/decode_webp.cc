#include <webp/decode.h>

#include <vector>

#include "models/image/codecs.h"
#include "runtime/core/status.h"

namespace trireme {

namespace {

absl::StatusOr<WebPBitstreamFeatures> ReadHeader(std::string_view bytes) {
  WebPBitstreamFeatures features;
  if (const VP8StatusCode code =
          WebPGetFeatures(reinterpret_cast<const uint8_t*>(bytes.data()),
                          bytes.size(), &features);
      code != VP8_STATUS_OK) {
    return DataLoss("damaged WebP header (libwebp's status {})",
                    static_cast<int>(code));
  }
  if (features.has_animation) {
    return Unimplemented("animated WebP, expected a single picture");
  }
  return features;
}

}  // namespace

absl::StatusOr<PictureSize> SizeOfWebp(std::string_view bytes) {
  ASSIGN_OR_RETURN(const WebPBitstreamFeatures features, ReadHeader(bytes));
  return PictureSize{features.height, features.width};
}

absl::StatusOr<Image> DecodeWebp(std::string_view bytes,
                                 const DecodeLimits& limits) {
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  ASSIGN_OR_RETURN(const WebPBitstreamFeatures features, ReadHeader(bytes));
  RETURN_IF_ERROR(CheckImageSize(features.width, features.height, limits));
  Image image = FilledImage(features.width, features.height, 3, 0);
  if (!features.has_alpha) {
    if (WebPDecodeRGBInto(data, bytes.size(), image.pixels.data(),
                          image.pixels.size(), 3 * image.width) == nullptr) {
      return DataLoss("damaged WebP");
    }
    return image;
  }
  const size_t count = static_cast<size_t>(image.width) * image.height;
  std::vector<uint8_t> rgba(4 * count);
  if (WebPDecodeRGBAInto(data, bytes.size(), rgba.data(), rgba.size(),
                         4 * image.width) == nullptr) {
    return DataLoss("damaged WebP");
  }
  for (size_t i = 0; i < count; ++i) {
    const int alpha = rgba[4 * i + 3];
    for (int c = 0; c < 3; ++c) {
      image.pixels[3 * i + c] = static_cast<uint8_t>(
          (rgba[4 * i + c] * alpha + 255 * (255 - alpha) + 127) / 255);
    }
  }
  return image;
}

}  // namespace trireme
