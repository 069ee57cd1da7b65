// A DiT over sets of tokens: their order means nothing to it.

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"
#include "models/dit/dit.h"
#include "models/dit/dit_family.h"
#include "parallel/grid/communicators.h"
#include "runtime/comm/single.h"
#include "runtime/core/philox.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

constexpr int64_t kTokens = 7;
constexpr int64_t kChannels = 5;

DitConfig Config() {
  DitConfig config;
  config.hidden = 16;
  config.layers = 2;
  config.heads = 2;
  config.mlp_hidden = 24;
  config.classes = 3;
  config.positions = Dit::NONE;
  config.set = {.tokens = kTokens, .channels = kChannels};
  return config;
}

TEST(TokenSetTest, WhatMovesTokensMovesTheirPredictions) {
  CpuDevice device(int64_t{1} << 28);
  SingleWorld world;
  const ProcessGrid grid;
  Communicators communicators(world, grid);
  ParallelContext parallel(device, grid, communicators);
  ParameterStore store(device, DType::kFloat64, /*seed=*/1);
  const DitPart part(store, grid, Config(), ChunkRequest{.blocks = {0, 2}});
  const RandomStream random({.seed = 3});
  for (const auto& parameter : store.parameters()) {
    std::vector<double> values(parameter->value.num_elements());
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = 0.3 * random.Normal(static_cast<int64_t>(i));
    }
    parameter->value =
        Tensor::FromValues<double>(device, parameter->value.shape(), values);
  }
  const auto predict = [&](const std::vector<double>& tokens) {
    Tape tape(device, Tape::Mode::kInference);
    ForwardContext context{tape, parallel};
    return part
        .Predict(context,
                 {.tokens = Tensor::FromValues<double>(
                      device, {1, kTokens, kChannels}, tokens),
                  .sigmas = Tensor::FromValues<double>(device, {1}, {{0.4}}),
                  .labels = Tensor::FromValues<int32_t>(device, {1}, {{1}})},
                 Tensor())
        .value()
        .ToVector<double>();
  };
  const auto reversed = [](const std::vector<double>& tokens) {
    std::vector<double> moved;
    for (int64_t token = kTokens - 1; token >= 0; --token) {
      const auto first = tokens.begin() + token * kChannels;
      moved.insert(moved.end(), first, first + kChannels);
    }
    return moved;
  };
  std::vector<double> tokens(kTokens * kChannels);
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = random.Normal(1000 + static_cast<int64_t>(i));
  }
  const std::vector<double> expected = reversed(predict(tokens));
  const std::vector<double> found = predict(reversed(tokens));
  double largest = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_NEAR(found[i], expected[i], 1e-12) << i;
    largest = std::max(largest, std::abs(found[i]));
  }
  EXPECT_GT(largest, 0.1);
}

TEST(TokenSetTest, TheFamilyLearnsTokenSetsAndNothingElse) {
  const auto family = MakeDitFamily(Config());
  EXPECT_EQ(family->samples().name, kTokenSetField);
  EXPECT_EQ(family->samples().shape, Shape({kTokens, kChannels}));
  for (const FieldSpec& field : AllFields(*family)) {
    EXPECT_NE(field.name, kPixelsField);
  }
  EXPECT_FALSE(family->ForInputs({.height = 8, .width = 8}).ok());
  // Padding of the last rank's tokens goes.
  CpuDevice device(1 << 20);
  const Tensor padded =
      Tensor::Zeros(device, {2, kTokens + 1, kChannels}, DType::kFloat32);
  EXPECT_EQ(family->ToSamples(padded).shape(), Shape({2, kTokens, kChannels}));
}

}  // namespace
}  // namespace trireme
