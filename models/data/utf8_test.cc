// What is text and what is not.

#include "models/data/utf8.h"

#include "gtest/gtest.h"

namespace trireme {
namespace {

TEST(Utf8, TakesCharactersOfEveryLength) {
  EXPECT_TRUE(IsUtf8(""));
  EXPECT_TRUE(IsUtf8("a\x7f"));
  EXPECT_TRUE(IsUtf8("\xc2\x80 \xdf\xbf"));
  EXPECT_TRUE(IsUtf8("\xe0\xa0\x80 \xed\x9f\xbf \xee\x80\x80"));
  EXPECT_TRUE(IsUtf8("\xf0\x90\x80\x80 \xf4\x8f\xbf\xbf"));
}

TEST(Utf8, EndsBeforeWhatIsNoCharacter) {
  EXPECT_EQ(Utf8Prefix("ab\xe9 c"), 2);          // Latin-1
  EXPECT_EQ(Utf8Prefix("a\x80"), 1);             // a byte of no beginning
  EXPECT_EQ(Utf8Prefix("a\xc3"), 1);             // cut
  EXPECT_EQ(Utf8Prefix("a\xe2\x82 b"), 1);       // cut
  EXPECT_EQ(Utf8Prefix("\xc0\xaf"), 0);          // overlong
  EXPECT_EQ(Utf8Prefix("\xe0\x9f\xbf"), 0);      // overlong
  EXPECT_EQ(Utf8Prefix("\xf0\x8f\xbf\xbf"), 0);  // overlong
  EXPECT_EQ(Utf8Prefix("\xed\xa0\x80"), 0);      // a surrogate
  EXPECT_EQ(Utf8Prefix("\xf4\x90\x80\x80"), 0);  // beyond Unicode
  EXPECT_EQ(Utf8Prefix("\xff"), 0);
}

}  // namespace
}  // namespace trireme
