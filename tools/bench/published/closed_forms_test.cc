// The simulator against formulas, and how far other systems' formulas are from
// it: what a user gains from exact simulation.

#include "tools/bench/published/closed_forms.h"

#include <vector>

#include "gtest/gtest.h"
#include "scheduler/schedules/orders.h"
#include "scheduler/simulator/simulator.h"

namespace trireme {
namespace {

// Step time of 1F1B with one message of `message_s` per hop and direction;
// stage `slow` takes `slowdown` times as long.
double SimulatedStep(int32_t stages, int32_t microbatches, double forward_s,
                     double backward_s, double message_s, int32_t slow = 0,
                     double slowdown = 1) {
  const Program program =
      BuildProgram(OneFOneBOrder(stages, microbatches), OneStagePerRank(stages),
                   microbatches, std::vector<int32_t>(stages, 1));
  CostModel cost = UniformCost(
      program,
      {.forward_s = forward_s, .backward_s = backward_s, .message_bytes = 1});
  cost.default_link.bytes_per_s = 1 / message_s;
  cost.chunks[slow][0].forward_s *= slowdown;
  cost.chunks[slow][0].backward_s *= slowdown;
  const absl::StatusOr<Simulation> result = Simulate(program, cost);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? result->step_s : 0;
}

TEST(ClosedForms, TheSimulatorIsExactInEveryCaseOfTheGrid) {
  int cases = 0;
  for (const int32_t p : {2, 3, 4, 6, 8}) {
    for (const int32_t rounds : {1, 2, 3, 8}) {
      for (const double backward : {1.0, 2.0}) {
        for (const double message :
             {0.01, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9}) {
          ++cases;
          const double expected =
              EqualStagesStepSeconds(p, rounds * p, 1.0 + backward, message);
          EXPECT_NEAR(SimulatedStep(p, rounds * p, 1.0, backward, message),
                      expected, 1e-9 * expected)
              << "p " << p << " n " << rounds * p << " b " << backward << " c "
              << message;
        }
      }
    }
  }
  EXPECT_EQ(cases, 320);
}

// Errors in percent as published notes on both estimators give them.
TEST(ClosedForms, AmpAndPipetteErrAsKnown) {
  struct Case {
    int32_t stages, microbatches;
    double message_s;
    double slowdown;
    double exact, amp_percent, pipette_percent;
  };
  const Case cases[] = {
      {4, 16, 0.1, 1.0, 59.8, -3.7, -0.7},
      {4, 16, 0.5, 1.0, 71.0, -15.5, -2.8},
      {8, 64, 0.3, 1.0, 250.2, -13.2, -1.4},
      {4, 16, 0.3, 1.5, 81.9, 1.1, 13.2},
  };
  for (const Case& test : cases) {
    // The slow stage is the third.
    const double exact = SimulatedStep(test.stages, test.microbatches, 1, 2,
                                       test.message_s, 2, test.slowdown);
    EXPECT_NEAR(exact, test.exact, 0.05);
    ClosedFormInput input;
    input.stage_s.assign(test.stages, 3.0);
    input.stage_s[2] *= test.slowdown;
    input.microbatches = test.microbatches;
    input.messages_s = 2 * (test.stages - 1) * test.message_s;
    EXPECT_NEAR(100 * (AmpStepSeconds(input) / exact - 1), test.amp_percent,
                0.06);
    EXPECT_NEAR(100 * (PipetteStepSeconds(input) / exact - 1),
                test.pipette_percent, 0.06);
  }
}

TEST(ClosedForms, PipetteBelowOneRoundCountsTheMessagesOnce) {
  const ClosedFormInput input = {.stage_s = {3, 3, 3, 3},
                                 .microbatches = 2,
                                 .messages_s = 1,
                                 .data_parallel_s = 5};
  EXPECT_DOUBLE_EQ(PipetteStepSeconds(input), 3 + 4 * 3 + 1 + 5);
}

}  // namespace
}  // namespace trireme
