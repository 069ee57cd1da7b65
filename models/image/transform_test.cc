#include "models/image/transform.h"

#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace trireme {
namespace {

TEST(TransformTest, FloatsAreChannelFirstFromMinusOneToOneAndReturnExactly) {
  Image image = FilledImage(2, 1, 3, 0);
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
