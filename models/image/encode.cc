#include "models/image/encode.h"

#include <png.h>
#include <zlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <system_error>

#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// The signature and the header's chunk, after which others may come.
constexpr size_t kAfterHeader = 8 + 25;

// A chunk (libpng.org/pub/png/spec/1.2, 3.2, 4.2.3): length, type, keyword and
// text, checksum of type and content.
std::string SoftwareChunk() {
  constexpr std::string_view kContent("tEXtSoftware\0trireme", 20);
  const auto big_endian = [](uint32_t number) {
    std::string bytes;
    for (int shift = 24; shift >= 0; shift -= 8) {
      bytes += static_cast<char>(number >> shift & 0xff);
    }
    return bytes;
  };
  const auto* content = reinterpret_cast<const Bytef*>(kContent.data());
  return big_endian(kContent.size() - 4) + std::string(kContent) +
         big_endian(static_cast<uint32_t>(
             crc32(0, content, static_cast<uInt>(kContent.size()))));
}

}  // namespace

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
  bytes.insert(kAfterHeader, SoftwareChunk());
  return bytes;
}

absl::Status CheckReplaces(const std::string& path, bool overwrite) {
  std::error_code error;
  if (overwrite || !std::filesystem::exists(path, error)) {
    return absl::OkStatus();
  }
  const std::string mark = SoftwareChunk();
  std::string begin(kAfterHeader + mark.size(), '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(begin.data(), static_cast<std::streamsize>(begin.size()));
  if (file && begin.ends_with(mark)) return absl::OkStatus();
  return FailedPrecondition(
      "{}: found a file that this program did not draw; expected another name, "
      "or --overwrite",
      path);
}

absl::Status WritePng(const std::string& path, const Image& image) {
  ASSIGN_OR_RETURN(const std::string bytes, EncodePng(image));
  return WriteFileAtomically(path, bytes);
}

}  // namespace trireme
