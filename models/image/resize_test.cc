#include "models/image/resize.h"

#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace trireme {
namespace {

TEST(ResizeTest, AConstantPictureStaysConstantAtEverySize) {
  for (const int side : {1, 3, 16, 29, 40}) {
    for (const auto& [width, height] : {std::pair(29, 17), std::pair(17, 29),
                                        std::pair(1, 1), std::pair(1, 50)}) {
      const Image square =
          ResizeAndCrop(FilledImage(width, height, 3, 201), side, side);
      ASSERT_EQ(square.width, side);
      ASSERT_EQ(square.height, side);
      for (const uint8_t value : square.pixels) ASSERT_EQ(value, 201);
    }
  }
}

TEST(ResizeTest, ShrinkingAveragesInsteadOfDroppingPixels) {
  // A one-pixel checkerboard must become gray, not black or white.
  Image board = FilledImage(32, 32, 1, 0);
  for (int y = 0; y < 32; ++y) {
    for (int x = 0; x < 32; ++x) *board.At(x, y) = (x + y) % 2 * 255;
  }
  for (const uint8_t value : ResizeAndCrop(board, 8, 8).pixels) {
    EXPECT_NEAR(value, 127.5, 8);
  }
}

TEST(ResizeTest, CropsTheCentreOfTheLongSide) {
  Image wide = FilledImage(30, 10, 1, 0);
  for (int y = 0; y < 10; ++y) {
    for (int x = 10; x < 20; ++x) *wide.At(x, y) = 255;
  }
  const Image square = ResizeAndCrop(wide, 10, 10);
  EXPECT_EQ(square.pixels, std::vector<uint8_t>(100, 255));
}

TEST(ResizeTest, EnlargingKeepsARampMonotone) {
  Image ramp = FilledImage(4, 4, 1, 0);
  for (int y = 0; y < 4; ++y) {
    for (int x = 0; x < 4; ++x) *ramp.At(x, y) = x * 80;
  }
  const Image large = ResizeAndCrop(ramp, 16, 16);
  for (int x = 1; x < 16; ++x) {
    EXPECT_GE(*large.At(x, 7), *large.At(x - 1, 7));
  }
  EXPECT_EQ(*large.At(0, 0), 0);
  EXPECT_EQ(*large.At(15, 0), 240);
}

TEST(ImageTest, ConvertsChannels) {
  Image colour = FilledImage(1, 1, 3, 0);
  colour.pixels = {255, 0, 0};
  EXPECT_EQ(WithChannels(colour, 1).pixels, std::vector<uint8_t>{76});
  EXPECT_EQ(WithChannels(FilledImage(1, 1, 1, 9), 3).pixels,
            (std::vector<uint8_t>{9, 9, 9}));
}

}  // namespace
}  // namespace trireme
