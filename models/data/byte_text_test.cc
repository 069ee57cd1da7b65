#include "models/data/byte_text.h"

#include <numeric>
#include <string>
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

TEST(ByteText, PooledCountsBytes) {
  std::vector<float> pooled(kByteValues, 7.0F);
  FillPooledByteText("abba", pooled);
  EXPECT_EQ(pooled['a'], 0.5F);
  EXPECT_EQ(std::accumulate(pooled.begin(), pooled.end(), 0.0F), 1.0F);
  FillPooledByteText("", pooled);
  EXPECT_EQ(std::accumulate(pooled.begin(), pooled.end(), 0.0F), 0.0F);
}

// A model that reads captions must not wait for encoders' files.
TEST(ByteText, FieldsAreFilledFromTheCaptionAlone) {
  const std::vector<FieldSpec> fields = {
      {.name = kTextField,
       .shape = {3, ByteTextWidth(3)},
       .from_caption = true},
      {.name = kTextCountField,
       .dtype = DType::kInt32,
       .typical = 3,
       .from_caption = true},
      {.name = kPooledTextField, .shape = {kByteValues}, .from_caption = true}};
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
