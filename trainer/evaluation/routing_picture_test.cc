#include "trainer/evaluation/routing_picture.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "moe/moe_tokens.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr int64_t kExperts = 2;
constexpr std::array<uint8_t, 3> kDarkest = {3, 51, 112};

int Darkest(const Image& image) {
  int count = 0;
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) {
      count += std::equal(kDarkest.begin(), kDarkest.end(), image.At(x, y));
    }
  }
  return count;
}

// Cells of the colour of the highest share are squares of 16 x 16 pixels.
TEST(RoutingPictureTest, AShareIsOfTheRoutesOfItsTime) {
  std::vector<double> one_time(kRouteKinds * kExperts);
  one_time[0] = 5;  // expert 0 has all, of time 0
  std::vector<double> two_times = one_time;
  two_times[kExperts + 1] = 1;  // expert 1, of the next time, where it has all
  const absl::StatusOr<Image> one = DrawRouting({{"a", one_time}}, true, 3);
  const absl::StatusOr<Image> two = DrawRouting({{"a", two_times}}, true, 3);
  ASSERT_TRUE(one.ok()) << one.status();
  ASSERT_TRUE(two.ok()) << two.status();
  EXPECT_EQ(Darkest(*two) - Darkest(*one), 16 * 16);
  const absl::StatusOr<Image> without_times =
      DrawRouting({{"a", two_times}}, false, 3);
  ASSERT_TRUE(without_times.ok());
  EXPECT_EQ(Darkest(*without_times), Darkest(*one));
}

TEST(RoutingPictureTest, VeryManyLayersAreShownInPart) {
  std::map<std::string, std::vector<double>> routes;
  for (int i = 0; i < 300; ++i) {
    routes["blocks." + std::to_string(i) + ".moe"] =
        std::vector<double>(kRouteKinds * 128, 1.0);
  }
  const absl::StatusOr<Image> image = DrawRouting(routes, true, 1);
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_LT(image->height, 32768);
}

TEST(RoutingPictureTest, RefusesCountsWithoutTimes) {
  EXPECT_TRUE(absl::IsInvalidArgument(
      DrawRouting({{"a", {1, 2, 3}}}, true, 1).status()));
}

}  // namespace
}  // namespace trireme
