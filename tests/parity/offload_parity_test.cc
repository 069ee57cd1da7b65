// Blocks that stream through the device train as if all of them were there: bit
// for bit, however many places they have, also where nothing but events orders
// copies and compute.

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "runtime/device/asynchronous_cpu_device_testing.h"
#include "tests/parity/covering.h"
#include "tests/parity/offload_grids.h"
#include "tests/parity/tiny_job.h"

namespace trireme {
namespace {

constexpr int64_t kLimitBytes = int64_t{1} << 40;
constexpr int kMaxRanks = 8;

// The same microbatch by microbatch, with everything on the device.
GridCase Resident(GridCase grid) {
  grid.plan.clear_offload();
  if (grid.plan.schedule() == Plan::UNIT_MAJOR) grid.plan.clear_schedule();
  return grid;
}

std::vector<GridCase> Cases() {
  std::vector<GridCase> cases;
  const auto add = [&](GridCase grid, const char* plan,
                       std::vector<uint32_t> resident_units) {
    grid.plan = PlanFromText(plan);
    for (const uint32_t resident : resident_units) {
      cases.push_back(Offloaded(grid, resident));
    }
  };
  const GridCase fp32{.dtype = DType::kFloat32};
  add(fp32, "microbatches: 1", {1, 2, 4});
  add(fp32, "microbatches: 4", {1, 2, 3, 4});
  add(fp32, "microbatches: 2 recompute: FULL", {2});
  add({.dtype = DType::kBFloat16}, "microbatches: 2", {1, 2});
  add({.dtype = DType::kFloat16}, "microbatches: 2", {2});
  add({.dtype = DType::kFloat32, .clip_norm = 1e-3}, "microbatches: 2", {2});
  add({.tp = 2, .dtype = DType::kFloat32, .text = Text::kJoint},
      "sequence_parallel: true microbatches: 2", {1, 2});
  add({.pp = 2, .dtype = DType::kFloat32, .layers = 5}, "", {1, 2});
  add({.pp = 2, .dtype = DType::kFloat32}, "schedule: GPIPE", {1});
  // One block a chunk: its backwards follow one another.
  add({.pp = 2, .dtype = DType::kFloat32},
      "schedule: INTERLEAVED microbatches: 4", {1, 2});
  add({.pp = 2, .dtype = DType::kBFloat16, .layers = 8},
      "schedule: INTERLEAVED", {1, 3});
  add({.tp = 2, .pp = 2, .text = Text::kCross}, "recompute: SELECTIVE", {1});
  add(fp32, "microbatches: 4 schedule: UNIT_MAJOR", {1, 2, 4});
  add({.dtype = DType::kBFloat16},
      "microbatches: 2 schedule: UNIT_MAJOR recompute: FULL", {2});
  add({.dtype = DType::kFloat16}, "microbatches: 2 schedule: UNIT_MAJOR", {1});
  add({.tp = 2, .dtype = DType::kFloat32, .text = Text::kJoint},
      "sequence_parallel: true microbatches: 2 schedule: UNIT_MAJOR", {2});
  add({.dtype = DType::kFloat32, .mmdit = true},
      "microbatches: 2 schedule: UNIT_MAJOR", {1});
  // Experts lie at home with their block, on either grid.
  const MoeConfig experts{
      .experts = 4, .expert_hidden = 24, .balance_weight = 0.1};
  add({.dtype = DType::kBFloat16, .moe = experts}, "microbatches: 2", {1, 2});
  add({.dtype = DType::kBFloat16, .moe = experts},
      "microbatches: 2 schedule: UNIT_MAJOR", {2});
  add({.tp = 2, .dtype = DType::kFloat32, .moe = experts}, "microbatches: 2",
      {2});
  add({.tp = 2, .pp = 2, .ep = 2, .dtype = DType::kFloat32, .moe = experts},
      "recompute: FULL", {1});
  MoeConfig biased = experts;
  biased.bias = true;
  biased.balance_over = MoeConfig::BalanceOver::kBatch;
  // Shares of so many routes are no numbers of bf16.
  add({.dtype = DType::kBFloat16, .height = 6, .moe = biased},
      "microbatches: 2", {2});
  add({.dp = 2, .dtype = DType::kBFloat16, .height = 6, .moe = biased},
      "sharding: OPTIMIZER", {2});
  // What does not train streams, and adapters stay.
  for (const WeightFormat frozen : {WeightFormat::kFull, WeightFormat::kFloat8,
                                    WeightFormat::kNormalFloat4}) {
    add({.dtype = DType::kBFloat16, .trained = Adapters(frozen)},
        "microbatches: 2", {1, 3});
  }
  add({.dtype = DType::kBFloat16,
       .trained = Adapters(WeightFormat::kNormalFloat4)},
      "microbatches: 4 schedule: UNIT_MAJOR", {2});
  // Nor are shares rounded that stay what another run left.
  add({.dtype = DType::kBFloat16,
       .height = 6,
       .trained = Adapters(WeightFormat::kFull),
       .moe = biased},
      "microbatches: 2", {2});
  add({.tp = 2,
       .dtype = DType::kFloat32,
       .text = Text::kJoint,
       .trained = Adapters(WeightFormat::kFloat8)},
      "sequence_parallel: true microbatches: 2", {2});
  add({.pp = 2,
       .dtype = DType::kFloat32,
       .mmdit = true,
       .trained = Adapters(WeightFormat::kNormalFloat4)},
      "recompute: FULL", {1});
  TrainedParameters decomposing = Adapters(WeightFormat::kNormalFloat4);
  decomposing.decompose = true;
  add({.dtype = DType::kBFloat16, .trained = decomposing}, "microbatches: 2",
      {1, 3});
  add({.tp = 2,
       .dtype = DType::kFloat32,
       .mmdit = true,
       .trained = decomposing},
      "sequence_parallel: true recompute: FULL", {1});
  // Blocks' inputs leave, too: all but the last ones'.
  add(fp32, "microbatches: 1 recompute: FULL offload { activations: true }",
      {1, 4});
  add({.dtype = DType::kBFloat16},
      "microbatches: 4 recompute: FULL offload { activations: true }", {2});
  add({.dtype = DType::kFloat16, .layers = 6, .clip_norm = 1e-3},
      "microbatches: 2 recompute: FULL recompute_blocks: 4 "
      "offload { activations: true }",
      {2});
  add({.dtype = DType::kBFloat16},
      "microbatches: 4 schedule: UNIT_MAJOR recompute: FULL "
      "offload { activations: true }",
      {2});
  add({.dtype = DType::kFloat32, .mmdit = true},
      "microbatches: 2 schedule: UNIT_MAJOR recompute: FULL "
      "offload { activations: true }",
      {1});
  add({.tp = 2, .dtype = DType::kFloat32, .text = Text::kJoint},
      "sequence_parallel: true microbatches: 2 recompute: FULL "
      "offload { activations: true }",
      {2});
  add({.pp = 2, .dtype = DType::kFloat32, .layers = 5},
      "recompute: FULL offload { activations: true }", {1, 2});
  add({.pp = 2, .dtype = DType::kFloat32},
      "schedule: GPIPE recompute: FULL offload { activations: true }", {1});
  add({.pp = 2, .dtype = DType::kBFloat16, .layers = 8},
      "schedule: INTERLEAVED recompute: FULL offload { activations: true }",
      {3});
  add({.tp = 2, .pp = 2, .ep = 2, .dtype = DType::kFloat32, .moe = experts},
      "recompute: FULL offload { activations: true }", {1});
  add({.dtype = DType::kBFloat16,
       .trained = Adapters(WeightFormat::kNormalFloat4)},
      "microbatches: 2 recompute: FULL offload { activations: true }", {2});
  // Data-parallel ranks have their shards at home, and gather and reduce on
  // the device.
  for (const char* sharding :
       {"REPLICATED", "OPTIMIZER", "GRADIENTS", "PARAMETERS"}) {
    const std::string plan =
        fmt::format("microbatches: 2 sharding: {}", sharding);
    add({.dp = 2, .dtype = DType::kFloat32, .clip_norm = 1e-3}, plan.c_str(),
        {2});
  }
  add({.dp = 4, .dtype = DType::kBFloat16}, "sharding: PARAMETERS", {1});
  add({.dp = 4, .dtype = DType::kFloat32},
      "microbatches: 2 sharding: GRADIENTS shard_group: 2", {3});
  add({.dp = 2, .dtype = DType::kFloat32},
      "sharding: GRADIENTS bf16_gradient_messages: true microbatches: 2", {2});
  add({.dp = 2, .dtype = DType::kFloat32},
      "sharding: REPLICATED bf16_gradient_messages: true", {2});
  add({.tp = 2, .dp = 2, .dtype = DType::kFloat32, .text = Text::kJoint},
      "sequence_parallel: true microbatches: 2 sharding: PARAMETERS "
      "recompute: FULL offload { activations: true }",
      {2});
  add({.cp = 2, .dp = 2, .dtype = DType::kFloat32, .height = 6},
      "sharding: OPTIMIZER", {1});
  add({.pp = 2, .dp = 2, .dtype = DType::kFloat32, .layers = 5},
      "sharding: GRADIENTS", {1});
  add({.dp = 2, .dtype = DType::kBFloat16},
      "microbatches: 2 schedule: UNIT_MAJOR sharding: OPTIMIZER", {2});
  add({.dp = 2, .ep = 2, .dtype = DType::kFloat32, .moe = experts},
      "sharding: OPTIMIZER", {1});
  add({.dp = 2,
       .dtype = DType::kBFloat16,
       .trained = Adapters(WeightFormat::kNormalFloat4)},
      "microbatches: 2 sharding: PARAMETERS", {2});
  // The first blocks stay, with their optimizer.
  add({.dtype = DType::kBFloat16, .clip_norm = 1e-3},
      "microbatches: 2 offload { device_blocks: 1 }", {1, 2});
  add(fp32, "microbatches: 4 schedule: UNIT_MAJOR offload { device_blocks: 3 }",
      {2});
  add({.pp = 2, .dtype = DType::kBFloat16, .layers = 8},
      "schedule: INTERLEAVED recompute: FULL "
      "offload { device_blocks: 1 activations: true }",
      {2});
  for (const char* sharding : {"OPTIMIZER", "GRADIENTS", "PARAMETERS"}) {
    const std::string plan = fmt::format(
        "microbatches: 2 sharding: {} offload {{ device_blocks: 2 }}",
        sharding);
    add({.dp = 2, .dtype = DType::kFloat32}, plan.c_str(), {1});
  }
  add({.tp = 2, .pp = 2, .ep = 2, .dtype = DType::kFloat32, .moe = experts},
      "recompute: FULL offload { device_blocks: 1 }", {1});
  add({.dtype = DType::kBFloat16,
       .trained = Adapters(WeightFormat::kNormalFloat4)},
      "microbatches: 2 offload { device_blocks: 1 }", {2});
  // One block has gradients at home, the others none.
  add({.dtype = DType::kBFloat16,
       .trained = {.kind = TrainedParameters::Kind::kLayers,
                   .layers = {"blocks.1.*"},
                   .frozen = WeightFormat::kNormalFloat4}},
      "microbatches: 2", {1, 2});
  return cases;
}

class OffloadParityTest : public testing::TestWithParam<GridCase> {};

TEST_P(OffloadParityTest, ChangesNoBitInAnyOrderOfStreams) {
  const GridRecord resident = Record(Resident(GetParam()));
  {
    const ParityReport report = Compare(resident, Record(GetParam()));
    EXPECT_TRUE(report.bitwise) << "one stream\n" << ParityText(report, {}, 5);
  }
  using enum AsynchronousCpuDevice::FreedMemory;
  const auto record = [&](int seed, AsynchronousCpuDevice::FreedMemory freed,
                          const std::vector<StreamKind>& late) {
    return Record(GetParam(), nullptr, [&, seed, freed](int rank) {
      return std::make_unique<AsynchronousCpuDevice>(
          kLimitBytes, static_cast<uint64_t>(seed * kMaxRanks + rank), freed,
          late);
    });
  };
  const int seeds = TestsEveryCase() ? 200 : 1;
  for (int seed = 0; seed < seeds; ++seed) {
    // A read of freed memory whose NaN would leave no trace ends the test.
    const ParityReport report = Compare(
        resident, record(seed, seed % 4 == 0 ? kProtected : kPoisoned, {}));
    EXPECT_TRUE(report.bitwise) << "seed " << seed << "\n"
                                << ParityText(report, {}, 5);
  }
  // Who forgets to wait for a stream is before it in every run.
  using enum StreamKind;
  const std::vector<std::vector<StreamKind>> orders = {
      {kCopyIn}, {kCopyOut}, {kCompute}};
  for (const std::vector<StreamKind>& late : orders) {
    const ParityReport report = Compare(resident, record(0, kPoisoned, late));
    EXPECT_TRUE(report.bitwise)
        << "stream " << static_cast<int>(late.front()) << " is late\n"
        << ParityText(report, {}, 5);
  }
}

INSTANTIATE_TEST_SUITE_P(Plans, OffloadParityTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.Name(); });

}  // namespace
}  // namespace trireme
