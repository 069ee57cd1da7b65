// What holds for every op, on every table of kernels that runs here.

#include <omp.h>

#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/asynchronous_cpu_device_testing.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/op_cases_testing.h"

namespace trireme {
namespace {

class OpCaseTest : public testing::TestWithParam<std::tuple<OpCase, DType>> {
 protected:
  const OpCase& op() const { return std::get<0>(GetParam()); }
  DType dtype() const { return std::get<1>(GetParam()); }

  CpuDevice device_{kPlenty};
};

TEST_P(OpCaseTest, IsNearWhatFp64Gives) {
  ExpectNearFp64(op(), dtype(), device_);
}

// Streams on which work is done later give the same bits.
TEST_P(OpCaseTest, IsTheSameOnAnAsynchronousDevice) {
  AsynchronousCpuDevice later(kPlenty, /*seed=*/1,
                              AsynchronousCpuDevice::FreedMemory::kPoisoned);
  Operands operands(device_, dtype()), of_later(later, dtype());
  EXPECT_TRUE(ValuesOf(op().run(operands)) == ValuesOf(op().run(of_later)));
}

TEST_P(OpCaseTest, DoesNotDependOnThreads) {
  if (!op().same_on_any_threads) GTEST_SKIP() << "oneDNN divides sums";
  const int before = omp_get_max_threads();
  std::vector<std::vector<double>> expected;
  for (int threads : {1, 2, 3}) {
    omp_set_num_threads(threads);
    Operands operands(device_, dtype());
    const auto values = ValuesOf(op().run(operands));
    if (threads == 1) expected = values;
    EXPECT_TRUE(values == expected) << threads << " threads";
  }
  omp_set_num_threads(before);
}

TEST_P(OpCaseTest, NeedsNoAlignment) {
  Operands aligned(device_, dtype()), shifted(device_, dtype(), true);
  EXPECT_TRUE(ValuesOf(op().run(aligned)) == ValuesOf(op().run(shifted)));
}

TEST_P(OpCaseTest, TakesTheSameMemoryOnADryDevice) {
  CpuDevice dry(kPlenty, CpuDevice::Mode::kDry);
  Operands operands(device_, dtype()), dry_operands(dry, dtype());
  const std::vector<Tensor> kept = op().run(operands);
  const std::vector<Tensor> dry_kept = op().run(dry_operands);
  const MemoryStatistics real = device_.Statistics();
  const MemoryStatistics counted = dry.Statistics();
  EXPECT_EQ(counted.current_by_category, real.current_by_category);
  EXPECT_EQ(counted.at_peak_by_category, real.at_peak_by_category);
  ASSERT_EQ(dry_kept.size(), kept.size());
  for (size_t i = 0; i < kept.size(); ++i) {
    EXPECT_EQ(dry_kept[i].shape(), kept[i].shape());
    EXPECT_EQ(dry_kept[i].dtype(), kept[i].dtype());
  }
}

std::string CaseName(
    const testing::TestParamInfo<std::tuple<OpCase, DType>>& info) {
  return NameOf(std::get<0>(info.param), std::get<1>(info.param));
}

INSTANTIATE_TEST_SUITE_P(Every, OpCaseTest,
                         testing::Combine(testing::ValuesIn(EveryOp()),
                                          testing::ValuesIn(kFloatingTypes)),
                         CaseName);

}  // namespace
}  // namespace trireme
