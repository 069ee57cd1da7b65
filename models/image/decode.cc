#include "models/image/decode.h"

#include "models/image/codecs.h"
#include "runtime/core/status.h"

namespace trireme {

ImageFormat SniffImageFormat(std::string_view bytes) {
  if (bytes.starts_with("\x89PNG\r\n\x1a\n")) return ImageFormat::kPng;
  if (bytes.starts_with("\xff\xd8\xff")) return ImageFormat::kJpeg;
  if (bytes.size() >= 12 && bytes.starts_with("RIFF") &&
      bytes.substr(8, 4) == "WEBP") {
    return ImageFormat::kWebp;
  }
  return ImageFormat::kUnknown;
}

absl::Status CheckImageSize(int64_t width, int64_t height,
                            const DecodeLimits& limits) {
  if (width < 1 || height < 1) {
    return DataLoss("picture of {}x{} pixels, expected at least 1x1", width,
                    height);
  }
  if (width > limits.max_side || height > limits.max_side ||
      width > limits.max_pixels / height) {
    return ResourceExhausted(
        "picture of {}x{} pixels, expected sides of at most {} and at most {} "
        "pixels",
        width, height, limits.max_side, limits.max_pixels);
  }
  return absl::OkStatus();
}

absl::StatusOr<Image> DecodeImage(std::string_view bytes,
                                  const DecodeLimits& limits) {
  if (static_cast<int64_t>(bytes.size()) > limits.max_bytes) {
    return ResourceExhausted("picture file of {} bytes, expected at most {}",
                             bytes.size(), limits.max_bytes);
  }
  switch (SniffImageFormat(bytes)) {
    case ImageFormat::kPng:
      return DecodePng(bytes, limits);
    case ImageFormat::kJpeg:
      return DecodeJpeg(bytes, limits);
    case ImageFormat::kWebp:
      return DecodeWebp(bytes, limits);
    case ImageFormat::kUnknown:
      break;
  }
  return InvalidArgument("not a PNG, JPEG or WebP file ({} bytes)",
                         bytes.size());
}

absl::StatusOr<PictureSize> ReadImageSize(std::string_view bytes,
                                          const DecodeLimits& limits) {
  absl::StatusOr<PictureSize> size;
  switch (SniffImageFormat(bytes)) {
    case ImageFormat::kPng:
      size = SizeOfPng(bytes);
      break;
    case ImageFormat::kJpeg:
      size = SizeOfJpeg(bytes);
      break;
    case ImageFormat::kWebp:
      size = SizeOfWebp(bytes);
      break;
    case ImageFormat::kUnknown:
      return InvalidArgument("not a PNG, JPEG or WebP file");
  }
  RETURN_IF_ERROR(size.status());
  RETURN_IF_ERROR(CheckImageSize(size->width, size->height, limits));
  return size;
}

}  // namespace trireme
