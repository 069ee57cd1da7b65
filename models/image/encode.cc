#include "models/image/encode.h"

#include <png.h>

#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {

absl::StatusOr<std::string> EncodePng(const Image& image) {
  CHECK(IsValid(image));
  png_image description{};
  description.version = PNG_IMAGE_VERSION;
  description.width = static_cast<png_uint_32>(image.width);
  description.height = static_cast<png_uint_32>(image.height);
  description.format = image.channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  // Encoding once into a buffer of the size that can never be too small is
  // cheaper than asking libpng for the size, which encodes to find out.
  std::string bytes(PNG_IMAGE_PNG_SIZE_MAX(description), '\0');
  png_alloc_size_t size = bytes.size();
  if (!png_image_write_to_memory(&description, bytes.data(), &size,
                                 /*convert_to_8bit=*/0, image.pixels.data(),
                                 /*row_stride=*/0, /*colormap=*/nullptr)) {
    return Internal("cannot encode a PNG of {}x{}: {}", image.width,
                    image.height, description.message);
  }
  bytes.resize(size);
  return bytes;
}

absl::Status WritePng(const std::string& path, const Image& image) {
  ASSIGN_OR_RETURN(const std::string bytes, EncodePng(image));
  return WriteFileAtomically(path, bytes);
}

}  // namespace trireme
