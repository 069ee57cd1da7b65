#include "scheduler/planner/megatron_table.h"

#include <cmath>

#include "gtest/gtest.h"

namespace trireme {
namespace {

// What a user relies on when planning for hardware that is not at hand:
// constants from three published runs predict the other seven.
TEST(MegatronTable, PredictsTheRunsItWasNotCalibratedOn) {
  const absl::StatusOr<MegatronColumn> column =
      MakeMegatronColumn(&MegatronPrediction::simulated);
  ASSERT_TRUE(column.ok()) << column.status();
  EXPECT_LE(column->error, 0.05);
  int calibrated = 0;
  for (size_t i = 0; i < kMegatronRuns.size(); ++i) {
    const double error =
        column->tflops[i] / kMegatronRuns[i].published_tflops - 1;
    EXPECT_LT(std::abs(error), 0.1) << kMegatronRuns[i].name;
    calibrated += kMegatronRuns[i].calibration ? 1 : 0;
  }
  EXPECT_EQ(calibrated, 3);
  const Efficiencies& constants = column->constants;
  for (const double constant :
       {constants.gemm, constants.link, constants.network}) {
    EXPECT_GE(constant, 0.1);
    EXPECT_LE(constant, 1.0);
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
