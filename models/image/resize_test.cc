#include "models/image/resize.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "models/image/image.h"

namespace trireme {
namespace {

// value(x, y) in every channel.
template <typename Function>
Image Picture(int width, int height, int channels, Function value) {
  Image image = FilledImage(width, height, channels, 0);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < channels; ++c) {
        image.At(x, y)[c] = static_cast<uint8_t>(value(x, y));
      }
    }
  }
  return image;
}

TEST(ResizeTest, FlatPicturesStayFlatAtAnySize) {
  for (const int channels : {1, 3}) {
    const Image flat = FilledImage(13, 7, channels, 200);
    for (const int side : {1, 2, 5, 7, 13, 40}) {
      EXPECT_EQ(Resize(flat, side, side),
                FilledImage(side, side, channels, 200));
      EXPECT_EQ(ResizeAndCrop(flat, side, side),
                FilledImage(side, side, channels, 200));
    }
  }
}

TEST(ResizeTest, TheSameSizeIsACopy) {
  const Image image =
      Picture(9, 9, 3, [](int x, int y) { return 7 * x + 13 * y; });
  EXPECT_EQ(Resize(image, 9, 9), image);
  EXPECT_EQ(ResizeAndCrop(image, 9, 9), image);
}

TEST(ResizeTest, ALineOfLightIsNotLostByReducing) {
  // One bright column in 64: taking every eighth pixel would miss it.
  const Image image =
      Picture(64, 64, 1, [](int x, int) { return x == 29 ? 255 : 0; });
  const Image small = Resize(image, 8, 8);
  double sum = 0;
  for (int x = 0; x < 8; ++x) sum += *small.At(x, 4);
  EXPECT_NEAR(sum, 255.0 / 8, 3);
}

TEST(ResizeTest, ARampStaysARamp) {
  const Image image = Picture(64, 8, 1, [](int x, int) { return 4 * x; });
  const Image small = Resize(image, 16, 8);
  for (int x = 1; x < 15; ++x) {
    EXPECT_NEAR(*small.At(x, 3), 4 * (4 * x + 1.5), 1.0) << x;
  }
  const Image large = Resize(image, 128, 8);
  for (int x = 2; x < 126; ++x) {
    EXPECT_NEAR(*large.At(x, 3), 4 * (x / 2.0 - 0.25), 1.0) << x;
  }
}

TEST(ResizeTest, CroppingKeepsTheMiddleOfTheLongSide) {
  // Three squares side by side; the middle one is kept.
  const Image wide = Picture(30, 10, 3, [](int x, int) {
    return x < 10 ? 10 : x < 20 ? 120 : 240;
  });
  EXPECT_EQ(ResizeAndCrop(wide, 10, 10), FilledImage(10, 10, 3, 120));
  const Image tall = Picture(10, 30, 1, [](int, int y) {
    return y < 10 ? 10 : y < 20 ? 120 : 240;
  });
  EXPECT_EQ(ResizeAndCrop(tall, 10, 10), FilledImage(10, 10, 1, 120));
}

TEST(ResizeTest, ExtremeShapesWork) {
  const Image thread =
      Picture(5000, 1, 1, [](int x, int) { return x < 2500 ? 0 : 200; });
  const Image square = ResizeAndCrop(thread, 4, 4);
  EXPECT_LT(*square.At(0, 0), 100);
  EXPECT_GT(*square.At(3, 3), 100);
}

}  // namespace
}  // namespace trireme
