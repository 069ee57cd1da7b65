// The planner's view of a job against the model itself.

#include "trainer/model_shape_of.h"

#include "gtest/gtest.h"
#include "models/dit/dit_config.h"
#include "models/dit/dit_family.h"
#include "trainer/describe.h"

namespace trireme {
namespace {

DitConfig ConfigWith(int64_t text_tokens, Dit::TextAttention attention) {
  DitConfig config;
  config.hidden = 96;
  config.layers = 12;
  config.heads = 6;
  config.mlp_hidden = 384;
  config.classes = 10;
  config.image = {.channels = 4, .height = 16, .width = 16};
  config.text_tokens = text_tokens;
  config.text_width = 40;
  config.text_attention = attention;
  return config;
}

TrainingSetup SetupOf(const DitConfig& config) {
  TrainingSetup setup;
  setup.family = MakeDitFamily(config);
  return setup;
}

// `trireme plan` and `trireme inspect` print MFUs that can be compared.
TEST(ModelShapeOf, PlannerAndTrainerCountTheSameFlops) {
  for (const DitConfig& config :
       {ConfigWith(0, Dit::CROSS), ConfigWith(9, Dit::CROSS),
        ConfigWith(9, Dit::JOINT)}) {
    const double flops = DitTrainingFlops(config);
    EXPECT_GT(flops, 0);
    EXPECT_EQ(ModelTrainingFlops(ModelShapeOf(SetupOf(config))), flops);
  }
}

// Too few parameters are a plan that does not fit; the planner rounds up: it
// takes the last block of joint text to be like the others.
TEST(ModelShapeOf, PlannerCountsTheModelsParameters) {
  for (const DitConfig& config :
       {ConfigWith(0, Dit::CROSS), ConfigWith(9, Dit::CROSS),
        ConfigWith(9, Dit::JOINT)}) {
    const double planned =
        static_cast<double>(ModelParameters(ModelShapeOf(SetupOf(config))));
    const double real = static_cast<double>(CountParameters(SetupOf(config)));
    const bool joint = config.joint_text();
    EXPECT_NEAR(planned / real, 1, joint ? 0.04 : 0.005)
        << config.text_tokens << " " << config.text_attention;
  }
}

}  // namespace
}  // namespace trireme
