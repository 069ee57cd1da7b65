#include "models/data/byte_text.h"

#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"
#include "models/batch.h"
#include "models/data/field_readers.h"

namespace trireme {
namespace {

// Half a character would be another text than any that was asked for.
TEST(ByteText, IsCutBetweenCharacters) {
  EXPECT_EQ(ByteTextOf("abc", 3), "abc");
  EXPECT_EQ(ByteTextOf("abcd", 3), "abc");
  const std::string cafe = "caf\xC3\xA9!";
  EXPECT_EQ(ByteTextOf(cafe, 5), "caf\xC3\xA9");
  EXPECT_EQ(ByteTextOf(cafe, 4), "caf");
  EXPECT_EQ(ByteTextOf("\xA9\xA9\xA9", 2), "");
}

TEST(ByteText, StatesSayWhichByteIsWhere) {
  const int64_t tokens = 3, width = ByteTextWidth(tokens);
  std::vector<float> states(tokens * width, 7.0F);
  FillByteText("ba", tokens, states);
  std::vector<float> expected(tokens * width, 0.0F);
  expected['b'] = expected[kByteValues] = 1;
  expected[width + 'a'] = expected[width + kByteValues + 1] = 1;
  EXPECT_EQ(states, expected);
}

std::vector<float> Pooled(std::string_view caption) {
  std::vector<float> pooled(kPooledByteTextWidth, 7.0F);
  FillPooledByteText(caption, pooled);
  return pooled;
}

double Cosine(const std::vector<float>& a, const std::vector<float>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0) /
         static_cast<double>(kPooledByteTextWidth);
}

// Two texts of the same letters are as far apart as any two.
TEST(ByteText, PooledTellsWordsApart) {
  const std::vector<float> heart = Pooled("red heart");
  EXPECT_NEAR(Cosine(heart, heart), 1.0, 1e-5);
  EXPECT_NEAR(Cosine(heart, Pooled("heart, red")), 1.0, 1e-5);
  EXPECT_GT(Cosine(heart, Pooled("red hearts")), 0.7);
  EXPECT_GT(Cosine(heart, Pooled("red apple")), 0.2);
  EXPECT_LT(Cosine(heart, Pooled("red apple")), 0.6);
  EXPECT_LT(Cosine(heart, Pooled("der earth")), 0.3);
  EXPECT_EQ(Pooled(" "), std::vector<float>(kPooledByteTextWidth, 0.0F));
}

// A model that reads captions must not wait for encoders' files.
TEST(ByteText, FieldsAreFilledFromTheCaptionAlone) {
  const std::vector<FieldSpec> fields = {{.name = kTextField,
                                          .shape = {3, ByteTextWidth(3)},
                                          .from_caption = true},
                                         {.name = kTextCountField,
                                          .dtype = DType::kInt32,
                                          .typical = 3,
                                          .from_caption = true},
                                         {.name = kPooledTextField,
                                          .shape = {kPooledByteTextWidth},
                                          .from_caption = true}};
  EXPECT_TRUE(PartsOf(fields).caption);
  EXPECT_FALSE(PartsOf(fields).text);
  Sample sample;
  sample.caption = "long";
  FieldValues counts = ZeroValues(fields[1], 1);
  for (const FieldSpec& spec : fields) {
    FieldValues values = ZeroValues(spec, 1);
    ASSERT_TRUE(ReaderOf(spec).read(sample, spec, 0, values).ok());
    if (spec.name == kTextCountField) counts = values;
  }
  EXPECT_EQ(std::get<std::vector<int32_t>>(counts)[0], 3);
}

}  // namespace
}  // namespace trireme
