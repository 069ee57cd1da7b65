#include <csetjmp>
#include <cstdio>
#include <vector>

// jpeglib.h uses FILE and size_t without declaring them.
#include <jerror.h>
#include <jpeglib.h>

#include "models/image/codecs.h"
#include "models/image/orientation.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// A progressive file may hold any number of scans, each of which costs a pass
// over the whole picture. Encoders write about ten.
constexpr int kMaxScans = 200;

// libjpeg reports errors through a callback that must not return: ours jumps
// back to the member function that called the library. Those functions hold no
// object with a destructor, so nothing is skipped by the jump.
class JpegReader {
 public:
  JpegReader() {
    decompress_.err = jpeg_std_error(&errors_);
    decompress_.client_data = this;
    errors_.error_exit = [](j_common_ptr info) {
      static_cast<JpegReader*>(info->client_data)->Fail(info);
    };
    errors_.emit_message = [](j_common_ptr info, int level) {
      static_cast<JpegReader*>(info->client_data)->OnMessage(info, level);
    };
    errors_.output_message = [](j_common_ptr) {};
    progress_.progress_monitor = [](j_common_ptr info) {
      static_cast<JpegReader*>(info->client_data)->OnProgress(info);
    };
  }
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;
  ~JpegReader() { jpeg_destroy_decompress(&decompress_); }

  bool ReadHeader(std::string_view bytes) {
    if (setjmp(jump_)) return false;
    jpeg_create_decompress(&decompress_);
    decompress_.progress = &progress_;
    jpeg_save_markers(&decompress_, JPEG_APP0 + 1, 0xffff);
    jpeg_mem_src(&decompress_,
                 reinterpret_cast<const unsigned char*>(bytes.data()),
                 bytes.size());
    jpeg_read_header(&decompress_, TRUE);
    return true;
  }

  int width() const { return static_cast<int>(decompress_.image_width); }
  int height() const { return static_cast<int>(decompress_.image_height); }

  // Chooses what to decode to and starts. `components` is what a row will
  // have: 1, 3 or, for CMYK, 4.
  bool Start() {
    if (setjmp(jump_)) return false;
    switch (decompress_.jpeg_color_space) {
      case JCS_GRAYSCALE:
        decompress_.out_color_space = JCS_GRAYSCALE;
        break;
      case JCS_CMYK:
      case JCS_YCCK:
        decompress_.out_color_space = JCS_CMYK;
        break;
      default:
        decompress_.out_color_space = JCS_RGB;
    }
    jpeg_start_decompress(&decompress_);
    return true;
  }

  // As its EXIF says, after the header was read.
  int orientation() const {
    for (const jpeg_marker_struct* marker = decompress_.marker_list;
         marker != nullptr; marker = marker->next) {
      const int orientation = ExifOrientation(
          {reinterpret_cast<const char*>(marker->data), marker->data_length});
      if (orientation != 1) return orientation;
    }
    return 1;
  }

  int components() const { return decompress_.output_components; }

  // Adobe writes CMYK inverted: 255 = no ink.
  bool inverted_cmyk() const { return decompress_.saw_Adobe_marker; }

  bool ReadRows(uint8_t* pixels, size_t row_bytes) {
    if (setjmp(jump_)) return false;
    while (decompress_.output_scanline < decompress_.output_height) {
      JSAMPROW row = pixels + decompress_.output_scanline * row_bytes;
      jpeg_read_scanlines(&decompress_, &row, 1);
    }
    jpeg_finish_decompress(&decompress_);
    return true;
  }

  absl::Status Error() const { return DataLoss("damaged JPEG: {}", message_); }

 private:
  [[noreturn]] void Fail(j_common_ptr info) {
    info->err->format_message(info, message_);
    longjmp(jump_, 1);
  }

  // libjpeg paints over damage and warns; half a picture is of no use here.
  // What does not touch the pixels passes.
  void OnMessage(j_common_ptr info, int level) {
    if (level >= 0) return;
    switch (info->err->msg_code) {
      case JWRN_ADOBE_XFORM:
      case JWRN_EXTRANEOUS_DATA:
      case JWRN_JFIF_MAJOR:
      case JWRN_TOO_MUCH_DATA:
        return;
      default:
        Fail(info);
    }
  }

  void OnProgress(j_common_ptr info) {
    if (decompress_.input_scan_number <= kMaxScans) return;
    std::snprintf(message_, sizeof(message_), "more than %d scans", kMaxScans);
    (void)info;
    longjmp(jump_, 1);
  }

  jpeg_decompress_struct decompress_{};
  jpeg_error_mgr errors_{};
  jpeg_progress_mgr progress_{};
  std::jmp_buf jump_{};
  char message_[JMSG_LENGTH_MAX] = {};
};

uint8_t Product(int a, int b) {
  return static_cast<uint8_t>((a * b + 127) / 255);
}

}  // namespace

absl::StatusOr<PictureSize> SizeOfJpeg(std::string_view bytes) {
  JpegReader reader;
  if (!reader.ReadHeader(bytes)) return reader.Error();
  const PictureSize stored = {reader.height(), reader.width()};
  if (!SwapsSides(reader.orientation())) return stored;
  return PictureSize{stored.width, stored.height};
}

absl::StatusOr<Image> DecodeJpeg(std::string_view bytes,
                                 const DecodeLimits& limits) {
  JpegReader reader;
  if (!reader.ReadHeader(bytes)) return reader.Error();
  RETURN_IF_ERROR(CheckImageSize(reader.width(), reader.height(), limits));
  // Markers are gone once all rows are read.
  const int orientation = reader.orientation();
  if (!reader.Start()) return reader.Error();
  const int components = reader.components();
  if (components != 1 && components != 3 && components != 4) {
    return DataLoss("JPEG with {} components, expected 1, 3 or 4", components);
  }
  Image image =
      FilledImage(reader.width(), reader.height(), components == 1 ? 1 : 3, 0);
  const size_t row_bytes = static_cast<size_t>(image.width) * components;
  if (components != 4) {
    if (!reader.ReadRows(image.pixels.data(), row_bytes)) return reader.Error();
    return Upright(image, orientation);
  }
  std::vector<uint8_t> cmyk(row_bytes * image.height);
  if (!reader.ReadRows(cmyk.data(), row_bytes)) return reader.Error();
  const int flip = reader.inverted_cmyk() ? 0 : 255;
  for (size_t i = 0; i < cmyk.size() / 4; ++i) {
    for (int c = 0; c < 3; ++c) {
      image.pixels[3 * i + c] =
          Product(cmyk[4 * i + c] ^ flip, cmyk[4 * i + 3] ^ flip);
    }
  }
  return Upright(image, orientation);
}

}  // namespace trireme
