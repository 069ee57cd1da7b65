// Pictures survive encoding and decoding; damaged and hostile files give an
// error and nothing worse.

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

// jpeglib.h uses FILE and size_t without declaring them.
#include <jpeglib.h>
#include <webp/encode.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/image/decode.h"
#include "models/image/encode.h"
#include "models/image/image.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

// A smooth picture, which lossy formats keep well.
Image Gradient(int width, int height, int channels) {
  Image image = FilledImage(width, height, channels, 0);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < channels; ++c) {
        image.At(x, y)[c] = static_cast<uint8_t>(
            40 + 160 * (c == 1 ? y : x) / std::max(width, height) + 10 * c);
      }
    }
  }
  return image;
}

std::string EncodeJpeg(const std::vector<uint8_t>& pixels, int width,
                       int height, int components, J_COLOR_SPACE space,
                       bool progressive) {
  jpeg_compress_struct compress{};
  jpeg_error_mgr errors{};
  compress.err = jpeg_std_error(&errors);
  jpeg_create_compress(&compress);
  unsigned char* data = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&compress, &data, &size);
  compress.image_width = width;
  compress.image_height = height;
  compress.input_components = components;
  compress.in_color_space = space;
  jpeg_set_defaults(&compress);
  jpeg_set_quality(&compress, 95, TRUE);
  if (progressive) jpeg_simple_progression(&compress);
  jpeg_start_compress(&compress, TRUE);
  while (compress.next_scanline < compress.image_height) {
    auto* row = const_cast<JSAMPROW>(
        pixels.data() +
        static_cast<size_t>(compress.next_scanline) * width * components);
    jpeg_write_scanlines(&compress, &row, 1);
  }
  jpeg_finish_compress(&compress);
  std::string bytes(reinterpret_cast<char*>(data), size);
  jpeg_destroy_compress(&compress);
  std::free(data);
  return bytes;
}

std::string EncodeJpeg(const Image& image, bool progressive = false) {
  return EncodeJpeg(image.pixels, image.width, image.height, image.channels,
                    image.channels == 1 ? JCS_GRAYSCALE : JCS_RGB, progressive);
}

std::string EncodeLossyWebp(const Image& image) {
  uint8_t* data = nullptr;
  const size_t size = WebPEncodeRGB(image.pixels.data(), image.width,
                                    image.height, 3 * image.width, 95, &data);
  std::string bytes(reinterpret_cast<char*>(data), size);
  WebPFree(data);
  return bytes;
}

double MeanDifference(const Image& a, const Image& b) {
  EXPECT_EQ(a.pixels.size(), b.pixels.size());
  double sum = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i) {
    sum += std::abs(a.pixels[i] - b.pixels[i]);
  }
  return sum / static_cast<double>(a.pixels.size());
}

TEST(CodecTest, PngKeepsGrayAndRgbExactly) {
  for (const int channels : {1, 3}) {
    const Image image = Gradient(37, 23, channels);
    EXPECT_EQ(DecodeImage(EncodePng(image).value()).value(), image);
  }
}

TEST(CodecTest, JpegKeepsThePictureNearly) {
  for (const int channels : {1, 3}) {
    for (const bool progressive : {false, true}) {
      const Image image = Gradient(64, 48, channels);
      const auto decoded = DecodeImage(EncodeJpeg(image, progressive));
      ASSERT_TRUE(decoded.ok()) << decoded.status();
      EXPECT_EQ(decoded->channels, channels);
      EXPECT_LT(MeanDifference(*decoded, image), 2.0);
    }
  }
}

// A JPEG's segment that says orientation 6: the first row is the picture's
// right side.
const std::string kTurned(
    "\xff\xe1\0\x22"
    "Exif\0\0MM\0\x2a\0\0\0\x08\0\x01"
    "\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
    36);

// A phone that was held upright stores what its sensor saw, lying.
TEST(CodecTest, JpegIsTurnedAsItsExifSays) {
  Image image = FilledImage(16, 8, 1, 10);
  for (int y = 0; y < 8; ++y) {
    for (int x = 8; x < 16; ++x) *image.At(x, y) = 240;
  }
  std::string jpeg = EncodeJpeg(image);
  jpeg.insert(2, kTurned);
  const Image turned = DecodeImage(jpeg).value();
  EXPECT_EQ(turned.width, 8);
  EXPECT_EQ(turned.height, 16);
  EXPECT_LT(*turned.At(4, 2), 60);
  EXPECT_GT(*turned.At(4, 13), 190);
}

// Pictures are put into buckets by it: it must be the decoded picture's.
TEST(CodecTest, TheSizeIsReadFromTheHeaderAlone) {
  const Image image = Gradient(37, 23, 3);
  std::string turned = EncodeJpeg(image);
  turned.insert(2, kTurned);
  for (const std::string& bytes : {EncodePng(image).value(), EncodeJpeg(image),
                                   turned, EncodeLossyWebp(image)}) {
    const Image decoded = DecodeImage(bytes).value();
    const PictureSize expected = {decoded.height, decoded.width};
    EXPECT_EQ(ReadImageSize(bytes).value(), expected);
    EXPECT_EQ(ReadImageSize(bytes.substr(0, bytes.size() * 9 / 10)).value(),
              expected);
    EXPECT_FALSE(ReadImageSize(bytes.substr(0, 16)).ok());
    EXPECT_FALSE(ReadImageSize(bytes, {.max_side = 30}).ok());
  }
  EXPECT_FALSE(ReadImageSize("no picture").ok());
}

// What this program drew may be drawn again; what it did not must be given.
TEST(CodecTest, PngOfOthersAreNotReplacedUnasked) {
  const std::string path = testing::TempDir() + "/codec_test.png";
  const Image image = FilledImage(4, 4, 3, 9);
  std::remove(path.c_str());
  EXPECT_TRUE(CheckReplaces(path, /*overwrite=*/false).ok());
  ASSERT_TRUE(WritePng(path, image).ok());
  EXPECT_TRUE(CheckReplaces(path, /*overwrite=*/false).ok());
  // Another program's has no mark.
  std::string bytes = EncodePng(image).value();
  bytes.replace(bytes.find("trireme"), 7, "painter");
  ASSERT_TRUE(WriteFileAtomically(path, bytes).ok());
  EXPECT_TRUE(
      absl::IsFailedPrecondition(CheckReplaces(path, /*overwrite=*/false)));
  EXPECT_TRUE(CheckReplaces(path, /*overwrite=*/true).ok());
}

TEST(CodecTest, CmykJpegBecomesRgb) {
  // Inverted, as Adobe writes it: cyan paper, half the light.
  std::vector<uint8_t> cmyk;
  for (int i = 0; i < 16 * 16; ++i) {
    cmyk.insert(cmyk.end(), {0, 255, 255, 128});
  }
  const auto decoded =
      DecodeImage(EncodeJpeg(cmyk, 16, 16, 4, JCS_CMYK, false));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_NEAR(decoded->At(8, 8)[0], 0, 3);
  EXPECT_NEAR(decoded->At(8, 8)[1], 128, 3);
  EXPECT_NEAR(decoded->At(8, 8)[2], 128, 3);
}

TEST(CodecTest, WebpKeepsThePictureNearlyAndLosslessExactly) {
  const Image image = Gradient(64, 48, 3);
  const auto lossy = DecodeImage(EncodeLossyWebp(image));
  ASSERT_TRUE(lossy.ok()) << lossy.status();
  EXPECT_LT(MeanDifference(*lossy, image), 3.0);

  uint8_t* data = nullptr;
  const size_t size =
      WebPEncodeLosslessRGB(image.pixels.data(), 64, 48, 3 * 64, &data);
  const std::string bytes(reinterpret_cast<char*>(data), size);
  WebPFree(data);
  EXPECT_EQ(DecodeImage(bytes).value(), image);
}

TEST(CodecTest, TransparencyIsLaidOverWhite) {
  std::vector<uint8_t> rgba;
  for (int i = 0; i < 16; ++i) {
    rgba.insert(rgba.end(), {255, 0, 0, static_cast<uint8_t>(i < 8 ? 255 : 0)});
  }
  uint8_t* data = nullptr;
  const size_t size = WebPEncodeLosslessRGBA(rgba.data(), 4, 4, 16, &data);
  const std::string bytes(reinterpret_cast<char*>(data), size);
  WebPFree(data);
  const Image image = DecodeImage(bytes).value();
  EXPECT_EQ(image.At(0, 0)[1], 0);
  EXPECT_EQ(image.At(0, 3)[0], 255);
  EXPECT_EQ(image.At(0, 3)[1], 255);
}

TEST(CodecTest, WritePngIsReadBack) {
  const std::string path = testing::TempDir() + "/codec_test.png";
  const Image image = Gradient(5, 7, 3);
  ASSERT_TRUE(WritePng(path, image).ok());
  EXPECT_EQ(DecodeImage(ReadFile(path, 1 << 20).value()).value(), image);
  std::remove(path.c_str());
}

TEST(CodecTest, OtherFilesAreRefused) {
  for (const std::string& bytes :
       {std::string(), std::string("GIF89a..........."), std::string("\x89PNG"),
        std::string(100, '\0')}) {
    EXPECT_TRUE(absl::IsInvalidArgument(DecodeImage(bytes).status()));
  }
}

// A header that claims 60000x60000 pixels must not cost 10 GB.
TEST(CodecTest, GiantSizesAreRefusedByTheirHeader) {
  const Image image = Gradient(16, 16, 3);

  std::string png = EncodePng(image).value();
  // Width and height follow the signature, a length and "IHDR". The checksum
  // is then wrong; a valid one is tried below.
  png.replace(16, 8, std::string("\x00\x00\xea\x60\x00\x00\xea\x60", 8));
  EXPECT_FALSE(DecodeImage(png).ok());

  std::string jpeg = EncodeJpeg(image);
  const size_t frame = jpeg.find("\xff\xc0");
  ASSERT_NE(frame, std::string::npos);
  jpeg.replace(frame + 5, 4, "\xea\x60\xea\x60");
  EXPECT_TRUE(absl::IsResourceExhausted(DecodeImage(jpeg).status()))
      << DecodeImage(jpeg).status();

  for (const std::string& bytes :
       {EncodePng(image).value(), EncodeJpeg(image), EncodeLossyWebp(image)}) {
    EXPECT_TRUE(absl::IsResourceExhausted(
        DecodeImage(bytes, {.max_side = 15}).status()));
    EXPECT_TRUE(absl::IsResourceExhausted(
        DecodeImage(bytes, {.max_pixels = 255}).status()));
    EXPECT_TRUE(absl::IsResourceExhausted(
        DecodeImage(bytes, {.max_bytes = 10}).status()));
    EXPECT_TRUE(DecodeImage(bytes, {.max_side = 16, .max_pixels = 256}).ok());
  }
}

TEST(CodecTest, TruncatedFilesAreErrorsNotHalfAPicture) {
  const Image image = Gradient(48, 32, 3);
  for (const std::string& bytes :
       {EncodePng(image).value(), EncodeJpeg(image), EncodeJpeg(image, true),
        EncodeLossyWebp(image)}) {
    ASSERT_TRUE(DecodeImage(bytes).ok());
    for (size_t length = 0; length + 16 < bytes.size(); length += 7) {
      EXPECT_FALSE(DecodeImage(bytes.substr(0, length)).ok()) << length;
    }
  }
}

// Whatever a damaged file gives, a picture or an error, it is well formed. (The
// sanitizers watch the decoders here.)
TEST(CodecTest, DamagedFilesNeverCrash) {
  const Image image = Gradient(40, 24, 3);
  uint64_t state = 1;
  const auto random = [&state](uint64_t bound) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % bound;
  };
  int errors = 0;
  for (const std::string& bytes :
       {EncodePng(image).value(), EncodeJpeg(image), EncodeJpeg(image, true),
        EncodeLossyWebp(image)}) {
    for (int trial = 0; trial < 400; ++trial) {
      std::string damaged = bytes;
      const uint64_t flips = 1 + random(4);
      for (uint64_t i = 0; i < flips; ++i) {
        damaged[random(damaged.size())] ^= static_cast<char>(1 << random(8));
      }
      // Half of the damage to headers, where it hurts most.
      if (trial % 2 == 0) {
        damaged[random(64)] = static_cast<char>(random(256));
      }
      const auto decoded = DecodeImage(damaged, {.max_pixels = 1 << 20});
      if (decoded.ok()) {
        EXPECT_TRUE(IsValid(*decoded));
      } else {
        ++errors;
        EXPECT_FALSE(MessageOf(decoded.status()).empty());
      }
    }
  }
  EXPECT_GT(errors, 400);
}

TEST(CodecTest, ErrorsSayWhatIsWrong) {
  std::string png = EncodePng(Gradient(16, 16, 3)).value();
  EXPECT_THAT(MessageOf(DecodeImage(png.substr(0, 60)).status()),
              HasSubstr("PNG"));
  EXPECT_THAT(MessageOf(DecodeImage(png, {.max_side = 8}).status()),
              HasSubstr("16x16"));
}

TEST(ImageTest, GrayOfWhiteIsWhiteAndRgbOfGrayRepeats) {
  const Image white = FilledImage(2, 2, 3, 255);
  EXPECT_EQ(WithChannels(white, 1), FilledImage(2, 2, 1, 255));
  const Image gray = Gradient(3, 3, 1);
  EXPECT_EQ(WithChannels(WithChannels(gray, 3), 1), gray);
  Image green = FilledImage(1, 1, 3, 0);
  green.At(0, 0)[1] = 255;
  EXPECT_EQ(*WithChannels(green, 1).At(0, 0), 150);
}

}  // namespace
}  // namespace trireme
