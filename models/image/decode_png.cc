#include <png.h>

#include "models/image/codecs.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// libpng's simplified interface keeps its longjmp to itself. Frees what it
// allocated when the scope ends.
struct PngReader {
  PngReader() { image.version = PNG_IMAGE_VERSION; }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;
  ~PngReader() { png_image_free(&image); }

  absl::Status Error() const {
    return DataLoss("damaged PNG: {}", image.message);
  }

  png_image image{};
};

}  // namespace

absl::StatusOr<PictureSize> SizeOfPng(std::string_view bytes) {
  PngReader reader;
  if (!png_image_begin_read_from_memory(&reader.image, bytes.data(),
                                        bytes.size())) {
    return reader.Error();
  }
  return PictureSize{reader.image.height, reader.image.width};
}

absl::StatusOr<Image> DecodePng(std::string_view bytes,
                                const DecodeLimits& limits) {
  PngReader reader;
  if (!png_image_begin_read_from_memory(&reader.image, bytes.data(),
                                        bytes.size())) {
    return reader.Error();
  }
  RETURN_IF_ERROR(
      CheckImageSize(reader.image.width, reader.image.height, limits));
  const bool colour = (reader.image.format & PNG_FORMAT_FLAG_COLOR) != 0;
  reader.image.format = colour ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  // Without this, 16-bit files are taken as linear light.
  reader.image.flags |= PNG_IMAGE_FLAG_16BIT_sRGB;
  Image image =
      FilledImage(static_cast<int>(reader.image.width),
                  static_cast<int>(reader.image.height), colour ? 3 : 1, 0);
  const png_color white = {255, 255, 255};
  if (!png_image_finish_read(&reader.image, &white, image.pixels.data(),
                             /*row_stride=*/0, /*colormap=*/nullptr)) {
    return reader.Error();
  }
  return image;
}

}  // namespace trireme
