// Each picture goes to the size that shows most of it, and none is enlarged
// unasked.

#include "models/data/buckets.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"

namespace trireme {
namespace {

using Sizes = std::vector<PictureSize>;

TEST(BucketsTest, TheLargestSizeIsTheFirst) {
  Sizes sizes = {{32, 64}, {16, 16}, {64, 32}, {48, 48}, {16, 16}, {64, 64}};
  SortSizes(sizes);
  EXPECT_EQ(sizes, (Sizes{{64, 64}, {48, 48}, {64, 32}, {32, 64}, {16, 16}}));
}

TEST(BucketsTest, SizesOfAnAreaAreThoseThatTrainersMake) {
  const Sizes sizes = SizesOfArea(512, 64, 2);
  ASSERT_FALSE(sizes.empty());
  EXPECT_EQ(sizes.front(), (PictureSize{512, 512}));
  for (const PictureSize& size : sizes) {
    EXPECT_LE(size.pixels(), 512 * 512);
    EXPECT_EQ(size.height % 64, 0);
    EXPECT_EQ(size.width % 64, 0);
    EXPECT_LE(std::max(size.height, size.width),
              2 * std::min(size.height, size.width));
    // Each also lies on its side, and one step more is too much.
    EXPECT_NE(std::find(sizes.begin(), sizes.end(),
                        PictureSize{size.width, size.height}),
              sizes.end());
    EXPECT_GT((std::min(size.height, size.width) + 64) *
                  std::max(size.height, size.width),
              512 * 512);
  }
  EXPECT_NE(std::find(sizes.begin(), sizes.end(), PictureSize{576, 448}),
            sizes.end());
  EXPECT_EQ(SizesOfArea(32, 64, 2), Sizes());
  EXPECT_EQ(SizesOfArea(64, 64, 16), (Sizes{{64, 64}}));
}

// Of one area the nearest in shape, as people who know such trainers expect.
TEST(BucketsTest, AmongSizesOfOneAreaTheNearestInShapeIsTaken) {
  const Sizes sizes = {{64, 64}, {128, 32}, {32, 128}};
  for (int64_t height = 200; height <= 2000; height += 50) {
    const PictureSize picture = {height, 600};
    const auto bucket = BucketOf(sizes, picture, /*enlarge=*/false);
    ASSERT_TRUE(bucket.has_value());
    const auto distance = [&](const PictureSize& size) {
      return std::abs(std::log(static_cast<double>(size.height * 600) /
                               static_cast<double>(size.width * height)));
    };
    for (const PictureSize& size : sizes) {
      EXPECT_LE(distance(sizes[*bucket]), distance(size) + 1e-9) << height;
    }
  }
}

TEST(BucketsTest, OfSeveralAreasTheLargestThatIsCoveredIsTaken) {
  const Sizes sizes = {{64, 64}, {64, 32}, {32, 32}, {16, 24}};
  EXPECT_EQ(BucketOf(sizes, {100, 100}, false), 0);
  // 17 % are cropped; the size of the nearest shape is so much smaller.
  EXPECT_EQ(BucketOf(sizes, {100, 120}, false), 0);
  EXPECT_EQ(BucketOf(sizes, {120, 60}, false), 1);
  EXPECT_EQ(BucketOf(sizes, {64, 63}, false), 1);
  EXPECT_EQ(BucketOf(sizes, {40, 40}, false), 2);
  EXPECT_EQ(BucketOf(sizes, {16, 24}, false), 3);
}

TEST(BucketsTest, ASmallerPictureIsEnlargedOnlyWhereAskedAndAsLittleAsCanBe) {
  const Sizes sizes = {{64, 64}, {64, 32}, {32, 32}};
  EXPECT_EQ(BucketOf(sizes, {31, 40}, false), std::nullopt);
  EXPECT_EQ(BucketOf(sizes, {31, 40}, true), 2);
  EXPECT_EQ(BucketOf({sizes.data(), 2}, {60, 30}, true), 1);
  EXPECT_EQ(BucketOf(sizes, {64, 64}, true), 0);
}

}  // namespace
}  // namespace trireme
