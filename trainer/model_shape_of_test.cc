// The planner's view of a job against the model itself.

#include "trainer/model_shape_of.h"

#include "gtest/gtest.h"
#include "models/dit/dit_config.h"
#include "trainer/describe.h"

namespace trireme {
namespace {

TrainingSetup SetupWith(int64_t text_tokens, Dit::TextAttention attention) {
  TrainingSetup setup;
  setup.model.hidden = 96;
  setup.model.layers = 12;
  setup.model.heads = 6;
  setup.model.mlp_hidden = 384;
  setup.model.classes = 10;
  setup.model.image = {.channels = 4, .height = 16, .width = 16};
  setup.model.text_tokens = text_tokens;
  setup.model.text_width = 40;
  setup.model.text_attention = attention;
  return setup;
}

// `trireme plan` and `trireme inspect` print MFUs that can be compared.
TEST(ModelShapeOf, PlannerAndTrainerCountTheSameFlops) {
  for (const TrainingSetup& setup :
       {SetupWith(0, Dit::CROSS), SetupWith(9, Dit::CROSS),
        SetupWith(9, Dit::JOINT)}) {
    const double flops = DitTrainingFlops(setup.model);
    EXPECT_GT(flops, 0);
    EXPECT_EQ(ModelTrainingFlops(ModelShapeOf(setup)), flops);
  }
}

// Too few parameters are a plan that does not fit; the planner rounds up: it
// takes the last block of joint text to be like the others.
TEST(ModelShapeOf, PlannerCountsTheModelsParameters) {
  for (const TrainingSetup& setup :
       {SetupWith(0, Dit::CROSS), SetupWith(9, Dit::CROSS),
        SetupWith(9, Dit::JOINT)}) {
    const double planned =
        static_cast<double>(ModelParameters(ModelShapeOf(setup)));
    const double real = static_cast<double>(CountParameters(setup));
    const bool joint = setup.model.joint_text();
    EXPECT_NEAR(planned / real, 1, joint ? 0.04 : 0.005)
        << setup.model.text_tokens << " " << setup.model.text_attention;
  }
}

}  // namespace
}  // namespace trireme
