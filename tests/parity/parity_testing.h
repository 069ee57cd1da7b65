// The two questions that every family and mode is asked under many plans.

#ifndef TRIREME_TESTS_PARITY_PARITY_TESTING_H_
#define TRIREME_TESTS_PARITY_PARITY_TESTING_H_

#include <string>

#include "gtest/gtest.h"
#include "tests/parity/tiny_job.h"
#include "trainer/verification/parity.h"

namespace trireme {

// Cases whose losses and gradients are those of one rank. What one rank records
// is kept for the cases of the same job.
class ParityTest : public testing::TestWithParam<GridCase> {
 protected:
  static void TearDownTestSuite() { references_ = {}; }

  // As near as the type allows.
  static ParityReport ExpectThoseOfOneRank(const GridCase& grid) {
    ParityReport report = Compare(references_.Of(grid), Record(grid));
    const ParityTolerance tolerance = ToleranceOf(grid.dtype);
    EXPECT_TRUE(Within(report, tolerance)) << ParityText(report, tolerance, 10);
    return report;
  }

 private:
  inline static References references_;
};

// Where pipeline, schedule, recompute or offload alone differ: of one rank with
// as many microbatches.
inline void ExpectBitsOfOneRank(const GridCase& grid) {
  GridCase base = OneRank(grid);
  base.plan.set_microbatches(grid.plan.microbatches());
  const ParityReport report = Compare(Record(base), Record(grid));
  EXPECT_TRUE(report.bitwise) << ParityText(report, {}, 5);
}

inline std::string NameOfCase(const testing::TestParamInfo<GridCase>& info) {
  return info.param.Name();
}

}  // namespace trireme

#endif  // TRIREME_TESTS_PARITY_PARITY_TESTING_H_
