#include "models/image/orientation.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace trireme {
namespace {

// EXIF with an orientation as its second tag.
std::string Exif(bool big_endian, int orientation, int type = 3) {
  std::string text("Exif\0\0", 6);
  const auto add = [&](uint32_t number, int size) {
    for (int i = 0; i < size; ++i) {
      const int shift = 8 * (big_endian ? size - 1 - i : i);
      text += static_cast<char>(number >> shift & 0xff);
    }
  };
  text += big_endian ? "MM" : "II";
  add(42, 2);
  add(8, 4);
  add(2, 2);
  for (const auto& [tag, value] :
       {std::pair(0x0110, 7), {0x0112, orientation}}) {
    add(tag, 2);
    add(type, 2);
    add(1, 4);
    add(value, 2);
    add(0, 2);
  }
  return text;
}

TEST(OrientationTest, IsReadInBothByteOrders) {
  for (const bool big_endian : {false, true}) {
    for (int orientation = 1; orientation <= 8; ++orientation) {
      EXPECT_EQ(ExifOrientation(Exif(big_endian, orientation)), orientation);
    }
  }
}

TEST(OrientationTest, WhatIsBrokenIsUpright) {
  EXPECT_EQ(ExifOrientation(""), 1);
  EXPECT_EQ(ExifOrientation("http://ns.adobe.com/xap/1.0/"), 1);
  EXPECT_EQ(ExifOrientation(Exif(true, 0)), 1);
  EXPECT_EQ(ExifOrientation(Exif(true, 9)), 1);
  EXPECT_EQ(ExifOrientation(Exif(true, 6, /*type=*/2)), 1);
  const std::string whole = Exif(true, 6);
  for (size_t length = 0; length + 4 < whole.size(); ++length) {
    EXPECT_EQ(ExifOrientation(whole.substr(0, length)), 1) << length;
  }
  // A directory far beyond the end, with many tags.
  std::string far = whole;
  far.replace(10, 4, "\xff\xff\xff\xf0");
  EXPECT_EQ(ExifOrientation(far), 1);
}

// The corners of abc over def as each orientation shows them.
TEST(OrientationTest, EachShowsTheSamePictureAsPhotographed) {
  const Image stored = {.width = 3,
                        .height = 2,
                        .channels = 1,
                        .pixels = {'a', 'b', 'c', 'd', 'e', 'f'}};
  const std::vector<std::string> expected = {"abcdef", "cbafed", "fedcba",
                                             "defabc", "adbecf", "daebfc",
                                             "fcebda", "cfbead"};
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const Image upright = Upright(stored, orientation);
    EXPECT_EQ(upright.width, orientation >= 5 ? 2 : 3);
    EXPECT_EQ(std::string(upright.pixels.begin(), upright.pixels.end()),
              expected[orientation - 1])
        << orientation;
  }
}

}  // namespace
}  // namespace trireme
