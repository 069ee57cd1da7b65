// A branch is left out of as many samples as it should be, whoever asks.

#include "models/transformer/drop_path.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"
#include "parallel/grid/communicators.h"
#include "runtime/comm/single.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

constexpr double kRate = 0.2;

std::vector<uint64_t> Samples(uint64_t first, int64_t count) {
  std::vector<uint64_t> samples(count);
  std::iota(samples.begin(), samples.end(), first);
  return samples;
}

TEST(DropPathTest, LeavesOutTheShareAndKeepsTheMean) {
  const DropPath path(7, "blocks.3.attention", kRate);
  const std::vector<double> factors = path.FactorsOf(5, Samples(0, 10000));
  int64_t dropped = 0;
  for (const double factor : factors) {
    if (factor == 0) {
      ++dropped;
    } else {
      EXPECT_EQ(factor, 1 / (1 - kRate));
    }
  }
  // Four standard deviations.
  EXPECT_NEAR(static_cast<double>(dropped), 2000, 160);
}

TEST(DropPathTest, DependsOnSeedNameStepAndSampleAlone) {
  const DropPath path(7, "blocks.3.attention", kRate);
  const std::vector<double> all = path.FactorsOf(5, Samples(100, 64));
  const std::vector<double> last = path.FactorsOf(5, Samples(132, 32));
  EXPECT_EQ(std::vector<double>(all.begin() + 32, all.end()), last);
  EXPECT_NE(path.FactorsOf(6, Samples(100, 64)), all);
  EXPECT_NE(path.FactorsOf(5, Samples(200, 64)), all);
  EXPECT_NE(
      DropPath(8, "blocks.3.attention", kRate).FactorsOf(5, Samples(100, 64)),
      all);
  EXPECT_NE(DropPath(7, "blocks.3.mlp", kRate).FactorsOf(5, Samples(100, 64)),
            all);
}

TEST(DropPathTest, SamplesAndTheirGradientsAreScaled) {
  CpuDevice device(1 << 20);
  SingleWorld world;
  const ProcessGrid grid;
  Communicators communicators(world, grid);
  ParallelContext parallel(device, grid, communicators);
  const DropPath path(7, "branch", 0.5);
  const std::vector<uint64_t> samples = Samples(0, 6);
  const std::vector<double> factors = path.FactorsOf(1, samples);
  std::vector<double> ones(6 * 2, 1), expected;
  for (const double factor : factors) {
    expected.insert(expected.end(), 2, factor);
  }
  EXPECT_EQ(std::accumulate(factors.begin(), factors.end(), 0.0),
            2 * std::count(factors.begin(), factors.end(), 2.0));
  Tape tape(device);
  ForwardContext context{tape, parallel};
  const Variable y =
      tape.Leaf(Tensor::FromValues<double>(device, {6, 2, 1}, ones));
  const Variable outputs[] = {
      path.Forward(context, 1, samples, {y, {}}).variable};
  EXPECT_EQ(outputs[0].value().ToVector<double>(), expected);
  tape.Backward(outputs, {Tensor::FromValues<double>(device, {6, 2, 1}, ones)},
                Tape::WeightGradients::kImmediate);
  EXPECT_EQ(tape.TakeGradient(y).ToVector<double>(), expected);
}

}  // namespace
}  // namespace trireme
