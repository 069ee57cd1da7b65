#include "tools/bench/published/megatron_table.h"

#include <cmath>

#include "gtest/gtest.h"
#include "tools/bench/published/megatron_h100_table.h"

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

  // The same constants with another device's data sheet, whatever chunks are
  // assumed.
  const absl::StatusOr<H100Table> h100 = MakeH100Table(constants);
  ASSERT_TRUE(h100.ok()) << h100.status();
  for (size_t i = 0; i < h100->error.size(); ++i) {
    EXPECT_LE(h100->error[i], 0.08) << kH100LayersPerChunk[i];
    for (size_t run = 1; run < kH100Runs.size(); ++run) {
      EXPECT_LT(h100->mfu[run][i], h100->mfu[run - 1][i]);
    }
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
