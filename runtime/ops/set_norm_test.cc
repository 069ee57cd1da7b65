#include "runtime/ops/set_norm.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/gaussian.h"
#include "runtime/ops/ops_testing.h"
#include "runtime/ops/set_loss.h"

namespace trireme {
namespace {

constexpr int64_t kSets = 3, kRows = 5, kChannels = 4, kGroups = 2;
const std::vector<int32_t> kCounts = {5, 2, 0};

class SetsTest : public testing::Test {
 protected:
  CpuDevice device_{kPlenty};
  Tensor x_ = RandomTensor(device_, {kSets, kRows, kChannels}, DType::kFloat64,
                           /*seed=*/1);
  Tensor counts_ = Tensor::FromValues<int32_t>(device_, {kSets}, kCounts);
};

TEST_F(SetsTest, EachSetIsNormedByItsOwnTokens) {
  constexpr double kEps = 0.01;
  const Tensor weight = RandomTensor(device_, {kChannels}, DType::kFloat64, 2);
  const Tensor bias = RandomTensor(device_, {kChannels}, DType::kFloat64, 3);
  const std::vector<double> y =
      Doubles(SetNorm(x_, counts_, kGroups, weight, bias, kEps).out);
  const std::vector<double> x = Doubles(x_), w = Doubles(weight),
                            b = Doubles(bias);
  constexpr int64_t kWidth = kChannels / kGroups;
  for (int64_t s = 0; s < kSets; ++s) {
    for (int64_t g = 0; g < kGroups; ++g) {
      const auto at = [&](int64_t row, int64_t c) {
        return (s * kRows + row) * kChannels + g * kWidth + c;
      };
      double sum = 0, squares = 0;
      for (int64_t row = 0; row < kCounts[s]; ++row) {
        for (int64_t c = 0; c < kWidth; ++c) {
          sum += x[at(row, c)];
          squares += x[at(row, c)] * x[at(row, c)];
        }
      }
      const double n = kCounts[s] * kWidth;
      for (int64_t row = 0; row < kRows; ++row) {
        for (int64_t c = 0; c < kWidth; ++c) {
          const double mean = sum / n;
          const double expected =
              row < kCounts[s]
                  ? (x[at(row, c)] - mean) /
                            std::sqrt(squares / n - mean * mean + kEps) *
                            w[g * kWidth + c] +
                        b[g * kWidth + c]
                  : 0;
          EXPECT_NEAR(y[at(row, c)], expected, 1e-12);
        }
      }
    }
  }
}

// A large shape counts no more than a small one, and padding or a token of
// another kind not at all.
TEST_F(SetsTest, LossesAreMeansOverEachSet) {
  const Tensor targets =
      RandomTensor(device_, {kSets, kRows, kChannels}, DType::kFloat64, 4);
  const std::vector<double> x = Doubles(x_), t = Doubles(targets);
  double expected = 0, divergence = 0;
  std::vector<int32_t> kinds(kSets * kRows, -1);
  for (int64_t s = 0; s < kSets; ++s) {
    // Of a set of one token none counts.
    const int64_t counted = kCounts[s] / 2;
    for (int64_t row = 0; row < kCounts[s]; ++row) {
      kinds[s * kRows + row] = row < counted
                                   ? 1 + static_cast<int32_t>(row % 2)
                                   : 3 * static_cast<int32_t>(row % 2);
      for (int64_t c = 0; row < counted && c < kChannels; ++c) {
        const int64_t i = (s * kRows + row) * kChannels + c;
        const double difference = 2 * std::tanh(x[i]) - t[i];
        expected += difference * difference / (counted * kChannels);
      }
      for (int64_t c = 0; c < kChannels / 2; ++c) {
        const int64_t i = (s * kRows + row) * kChannels + c;
        const double l = x[i + kChannels / 2];
        divergence += 0.5 * (x[i] * x[i] + std::exp(l) - 1 - l) /
                      (kCounts[s] * kChannels / 2);
      }
    }
  }
  ExpectNear(
      SetLoss(x_, targets,
              Tensor::FromValues<int32_t>(device_, {kSets, kRows}, kinds),
              {.first = 1, .last = 2}, 2),
      {expected}, "loss");
  ExpectNear(GaussianDivergence(x_, &counts_), {divergence}, "divergence");
}

}  // namespace
}  // namespace trireme
