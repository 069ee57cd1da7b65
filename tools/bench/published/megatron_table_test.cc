#include "tools/bench/published/megatron_table.h"

#include <cmath>

#include "gtest/gtest.h"
#include "tools/bench/published/megatron_h100_table.h"

namespace trireme {
namespace {

// What CalibrateOnMegatron finds for the simulator, which takes minutes.
constexpr Efficiencies kSimulator = {
    .gemm = 0.669, .link = 0.722, .network = 0.997};

// What a user relies on when planning for hardware that is not at hand:
// constants from three published runs predict the other seven.
TEST(MegatronTable, PredictsTheRunsItWasNotCalibratedOn) {
  double error = 0;
  int predictions = 0;
  for (const MegatronRun& run : kMegatronRuns) {
    const absl::StatusOr<MegatronPrediction> predicted =
        PredictRun(run, kSimulator);
    ASSERT_TRUE(predicted.ok()) << predicted.status();
    const double off =
        std::abs(predicted->simulated / run.published_tflops - 1);
    EXPECT_LT(off, 0.05) << run.name;
    if (run.calibration) continue;
    error += off;
    ++predictions;
  }
  EXPECT_EQ(predictions, 7);
  EXPECT_LE(error / predictions, 0.026);
}

// The same constants with another device's data sheet: utilization falls with
// the share of a batch that each replica has.
TEST(MegatronTable, PredictsAnotherDevice) {
  double before = 1;
  for (const H100Run& run : kH100Runs) {
    const absl::StatusOr<double> mfu = PredictH100Mfu(run, 4, kSimulator);
    ASSERT_TRUE(mfu.ok()) << mfu.status();
    EXPECT_NEAR(*mfu / run.published_mfu, 1, 0.02);
    EXPECT_LT(*mfu, before);
    before = *mfu;
  }
}

// The formulas know no interleaving: they charge the whole bubble.
TEST(MegatronTable, FormulasMissWhatInterleavingGains) {
  const absl::StatusOr<MegatronPrediction> row =
      PredictRun(kMegatronRuns[6], {});
  ASSERT_TRUE(row.ok()) << row.status();
  EXPECT_LT(row->amp, 0.96 * row->simulated);
  EXPECT_LT(row->pipette, 0.96 * row->simulated);
}

}  // namespace
}  // namespace trireme
