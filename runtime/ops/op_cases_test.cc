// What holds for every op, on every table of kernels that runs here.

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/asynchronous_cpu_device_testing.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/op_cases_testing.h"

namespace trireme {
namespace {

// The outputs' elements; == on them is equality of bits here, as the operands
// are finite.
std::vector<std::vector<double>> Values(const std::vector<Tensor>& tensors) {
  std::vector<std::vector<double>> values;
  for (const Tensor& tensor : tensors) values.push_back(Doubles(tensor));
  return values;
}

double RootMeanSquare(const std::vector<double>& values) {
  double squares = 0;
  for (const double value : values) squares += value * value;
  return values.empty()
             ? 0
             : std::sqrt(squares / static_cast<double>(values.size()));
}

class OpCaseTest : public testing::TestWithParam<std::tuple<OpCase, DType>> {
 protected:
  const OpCase& op() const { return std::get<0>(GetParam()); }
  DType dtype() const { return std::get<1>(GetParam()); }

  CpuDevice device_{kPlenty};
};

TEST_P(OpCaseTest, IsNearWhatFp64Gives) {
  Operands operands(device_, dtype());
  Operands exact = Operands::Rounded(device_, dtype());
  const auto got = Values(op().run(operands));
  const auto expected = Values(op().run(exact));
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i].size(), expected[i].size()) << "output " << i;
    const double usual = RootMeanSquare(expected[i]);
    double worst = 0;
    for (size_t j = 0; j < got[i].size(); ++j) {
      worst = std::max(worst, std::abs(got[i][j] - expected[i][j]) /
                                  (usual + std::abs(expected[i][j])));
    }
    EXPECT_LE(worst / RoundingOf(dtype()), op().roundings) << "output " << i;
  }
}

// Streams on which work is done later give the same bits.
TEST_P(OpCaseTest, IsTheSameOnAnAsynchronousDevice) {
  AsynchronousCpuDevice later(kPlenty, /*seed=*/1,
                              AsynchronousCpuDevice::FreedMemory::kPoisoned);
  Operands operands(device_, dtype()), of_later(later, dtype());
  EXPECT_TRUE(Values(op().run(operands)) == Values(op().run(of_later)));
}

TEST_P(OpCaseTest, DoesNotDependOnThreads) {
  if (!op().same_on_any_threads) GTEST_SKIP() << "oneDNN divides sums";
  const int before = omp_get_max_threads();
  std::vector<std::vector<double>> expected;
  for (int threads : {1, 2, 3}) {
    omp_set_num_threads(threads);
    Operands operands(device_, dtype());
    const auto values = Values(op().run(operands));
    if (threads == 1) expected = values;
    EXPECT_TRUE(values == expected) << threads << " threads";
  }
  omp_set_num_threads(before);
}

TEST_P(OpCaseTest, NeedsNoAlignment) {
  Operands aligned(device_, dtype()), shifted(device_, dtype(), true);
  EXPECT_TRUE(Values(op().run(aligned)) == Values(op().run(shifted)));
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

std::string NameOf(
    const testing::TestParamInfo<std::tuple<OpCase, DType>>& info) {
  std::string name = std::get<0>(info.param).name + "_" +
                     std::string(DTypeName(std::get<1>(info.param)));
  std::replace(name.begin(), name.end(), ' ', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Every, OpCaseTest,
                         testing::Combine(testing::ValuesIn(EveryOp()),
                                          testing::ValuesIn(kFloatingTypes)),
                         NameOf);

}  // namespace
}  // namespace trireme
