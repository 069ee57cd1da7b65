// Which encoders a job drops, and what no model could drop.

#include "trainer/job/encoder_drops_of.h"

#include <string>

#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "models/resolve.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<std::vector<DroppedEncoder>> Drops(const std::string& text) {
  Model model;
  CHECK(google::protobuf::TextFormat::ParseFromString(
      "mmdit { preset: TINY text { tokens: 7 width: 6 pooled_width: 5 } }",
      &model));
  const auto family = ResolveModel(model, {.channels = 3, .resolution = 8});
  CHECK_OK(family.status());
  ObjectiveConfig objective;
  CHECK(google::protobuf::TextFormat::ParseFromString(text, &objective));
  return EncoderDropsOf(objective, **family);
}

std::string ErrorOf(const std::string& drop) {
  return MessageOf(Drops("encoder_drops { " + drop + " }").status());
}

TEST(EncoderDropsOfTest, PartsAreAsTheJobHasThem) {
  const auto drops = Drops(R"(
      encoder_drops { encoder: "text_pooled" probability: 0.25 }
      encoder_drops { encoder: "t5" probability: 0.5
                      parts { field: "text" first_token: 4 channels: 2 } })");
  ASSERT_TRUE(drops.ok()) << drops.status();
  ASSERT_EQ(drops->size(), 2u);
  EXPECT_EQ((*drops)[0].parts[0].field, kPooledTextField);
  EXPECT_EQ((*drops)[0].probability, 0.25);
  const DroppedEncoder::Part& part = (*drops)[1].parts[0];
  EXPECT_EQ(part.first_token, 4);
  EXPECT_EQ(part.tokens, 0);
  EXPECT_EQ(part.channels, 2);
}

TEST(EncoderDropsOfTest, ErrorsNameTheField) {
  EXPECT_THAT(ErrorOf("encoder: \"text\""),
              HasSubstr("objective.encoder_drops[0].probability: found none"));
  EXPECT_THAT(ErrorOf("probability: 1"),
              HasSubstr("objective.encoder_drops[0].encoder: found none"));
  EXPECT_THAT(ErrorOf("encoder: \"text\" probability: 1.5"),
              HasSubstr("objective.encoder_drops[0].probability: found 1.5"));
  EXPECT_THAT(ErrorOf("encoder: \"clip\" probability: 1"),
              HasSubstr("found 'clip', expected what the model reads: text, "
                        "text_pooled"));
  EXPECT_THAT(ErrorOf("encoder: \"t5\" probability: 1 "
                      "parts { field: \"text\" first_token: 3 tokens: 5 }"),
              HasSubstr("encoder_drops[0].parts[0].tokens: found 5, expected 1 "
                        "to 4"));
}

}  // namespace
}  // namespace trireme
