#include "models/image/transform.h"

#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace trireme {
namespace {

TEST(TransformTest, AConstantPictureStaysConstantAtEverySize) {
  for (const int side : {1, 3, 16, 29, 40}) {
    for (const auto& [width, height] : {std::pair(29, 17), std::pair(17, 29),
                                        std::pair(1, 1), std::pair(1, 50)}) {
      const Image square = ResizeToSquare(Image(width, height, 3, 201), side);
      ASSERT_EQ(square.width, side);
      ASSERT_EQ(square.height, side);
      for (const uint8_t value : square.pixels) ASSERT_EQ(value, 201);
    }
  }
}

TEST(TransformTest, ShrinkingAveragesInsteadOfDroppingPixels) {
  // A one-pixel checkerboard must become gray, not black or white.
  Image board(32, 32, 1);
  for (int y = 0; y < 32; ++y) {
    for (int x = 0; x < 32; ++x) *board.Pixel(x, y) = (x + y) % 2 * 255;
  }
  for (const uint8_t value : ResizeToSquare(board, 8).pixels) {
    EXPECT_NEAR(value, 127.5, 8);
  }
}

TEST(TransformTest, CropsTheCentreOfTheLongSide) {
  Image wide(30, 10, 1);
  for (int y = 0; y < 10; ++y) {
    for (int x = 10; x < 20; ++x) *wide.Pixel(x, y) = 255;
  }
  const Image square = ResizeToSquare(wide, 10);
  EXPECT_EQ(square.pixels, std::vector<uint8_t>(100, 255));
}

TEST(TransformTest, EnlargingKeepsARampMonotone) {
  Image ramp(4, 4, 1);
  for (int y = 0; y < 4; ++y) {
    for (int x = 0; x < 4; ++x) *ramp.Pixel(x, y) = x * 80;
  }
  const Image large = ResizeToSquare(ramp, 16);
  for (int x = 1; x < 16; ++x) {
    EXPECT_GE(*large.Pixel(x, 7), *large.Pixel(x - 1, 7));
  }
  EXPECT_EQ(*large.Pixel(0, 0), 0);
  EXPECT_EQ(*large.Pixel(15, 0), 240);
}

TEST(TransformTest, ConvertsChannels) {
  Image colour(1, 1, 3);
  colour.pixels = {255, 0, 0};
  EXPECT_EQ(ConvertChannels(colour, 1).pixels, std::vector<uint8_t>{76});
  EXPECT_EQ(ConvertChannels(Image(1, 1, 1, 9), 3).pixels,
            (std::vector<uint8_t>{9, 9, 9}));
}

TEST(TransformTest, FloatsAreChannelFirstFromMinusOneToOneAndReturnExactly) {
  Image image(2, 1, 3);
  image.pixels = {0, 51, 255, 255, 102, 0};
  std::vector<float> floats(6);
  ToFloat(image, floats);
  const std::vector<float> expected = {-1, 1, -0.6F, -0.2F, 1, -1};
  for (int i = 0; i < 6; ++i) EXPECT_NEAR(floats[i], expected[i], 1e-6);
  EXPECT_EQ(FromFloat(floats, 2, 1, 3).pixels, image.pixels);
}

TEST(TransformTest, FloatsThatAModelGotWrongBecomeValidBytes) {
  const std::vector<float> floats = {-5, 7,
                                     std::numeric_limits<float>::quiet_NaN(),
                                     std::numeric_limits<float>::infinity()};
  EXPECT_EQ(FromFloat(floats, 4, 1, 1).pixels,
            (std::vector<uint8_t>{0, 255, 0, 255}));
}

}  // namespace
}  // namespace trireme
