// Training on a device whose streams overtake one another wherever no event
// forbids it gives, bit for bit, what it gives on a device of one stream. What
// forgets an event computes with NaN or with values of before.
//
// At check-in every case runs under a seed of its own, and a few small ones of
// unlike modes under 20; `./dev test --config=full` runs each under 20.

#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/asynchronous_cpu_device_testing.h"
#include "tests/parity/covering.h"
#include "tests/parity/grids.h"
#include "tests/parity/tiny_job.h"

namespace trireme {
namespace {

constexpr int64_t kLimitBytes = int64_t{1} << 40;
constexpr int kMaxRanks = 8;

struct SeededCase {
  GridCase grid;
  int first_seed = 0;
};

std::vector<SeededCase> Seeded(const std::vector<GridCase>& grids,
                               int first_seed) {
  std::vector<SeededCase> cases;
  for (const GridCase& grid : grids) cases.push_back({grid, first_seed++});
  return cases;
}

using FreedMemory = AsynchronousCpuDevice::FreedMemory;

DeviceMaker Asynchronous(int seed, FreedMemory freed) {
  return [=](int rank) {
    return std::make_unique<AsynchronousCpuDevice>(
        kLimitBytes, static_cast<uint64_t>(seed * kMaxRanks + rank), freed);
  };
}

std::vector<GridCase> MmditGrids() {
  std::vector<GridCase> cases;
  for (const int64_t single_layers : {2, 0}) {
    const GridCase mmdit{.mmdit = true,
                         .single_layers = single_layers,
                         .image_attention_layers = single_layers == 0 ? 2 : 0};
    GridCase& pipeline = cases.emplace_back(mmdit);
    pipeline.tp = pipeline.pp = 2;
    pipeline.plan = PlanFromText("sequence_parallel: true recompute: FULL");
    GridCase& context = cases.emplace_back(mmdit);
    context.cp = 4;
    context.height = 6;
    context.plan = PlanFromText("ulysses: 2");
  }
  return cases;
}

// The host reads how rows are routed before it asks for what follows.
std::vector<GridCase> MoeGrids() {
  const MoeConfig experts = {
      .experts = 4, .top_k = 2, .expert_hidden = 24, .shared_hidden = 8};
  return {{.moe = experts},
          {.dp = 2, .ep = 2, .moe = experts},
          {.tp = 2, .dp = 2, .ep = 4, .moe = experts},
          // Rows travel while others are computed.
          {.dp = 2,
           .ep = 2,
           .moe = experts,
           .plan = PlanFromText("experts { chunks: 3 }")},
          {.tp = 2,
           .dp = 2,
           .ep = 4,
           .moe = experts,
           .plan = PlanFromText("experts { chunks: 2 node_ranks: 2 } "
                                "recompute: FULL")}};
}

// The host reads where voxels lie.
std::vector<GridCase> SparseGrids() {
  return {{.tp = 2,
           .cp = 2,
           .sparse_dit = CrossCondition::Kind::kPicture,
           .plan = PlanFromText("sequence_parallel: true recompute: FULL")},
          {.pp = 2, .dp = 2, .sparse_dit = CrossCondition::Kind::kFeatures}};
}

// Kernels of the host make the tables by which others read.
std::vector<GridCase> SparseVaeGrids() {
  return {{.tp = 2,
           .sparse_vae = true,
           .plan = PlanFromText("sequence_parallel: true recompute: FULL")},
          {.pp = 2, .dp = 2, .sparse_vae = true}};
}

// Ranks of tp agree on scales amid a layer.
std::vector<GridCase> Fp8Grids() {
  return {{.tp = 2,
           .cp = 2,
           .height = 6,
           .fp8 = true,
           .plan = PlanFromText("sequence_parallel: true recompute: FULL")},
          {.tp = 2,
           .pp = 2,
           .fp8 = true,
           .delayed = true,
           .plan = PlanFromText("schedule: ZB_H1 microbatches: 2")}};
}

constexpr int kSeeds = 20;

// Of two blocks, few samples and two ranks, with what orders streams in one way
// each: collectives inside blocks that run again, weight gradients that are put
// off, parameters that come and go, rows that travel while others are computed.
std::vector<GridCase> SmallGrids() {
  const GridCase small = {.layers = 2, .batch = 4};
  std::vector<GridCase> cases(4, small);
  cases[0].tp = 2;
  cases[0].plan = PlanFromText("sequence_parallel: true recompute: FULL");
  cases[1].pp = 2;
  cases[1].plan = PlanFromText("schedule: ZB_H1");
  cases[2].dp = 2;
  cases[2].plan = PlanFromText("sharding: PARAMETERS");
  cases[3].dp = cases[3].ep = 2;
  cases[3].moe = MoeConfig{.experts = 4, .top_k = 2, .expert_hidden = 24};
  cases[3].plan = PlanFromText("experts { chunks: 3 }");
  return cases;
}

class AsynchronousParityTest : public testing::TestWithParam<SeededCase> {};

void ExpectEveryBit(const SeededCase& seeded, int seeds) {
  const GridRecord reference = Record(seeded.grid);
  for (int i = 0; i < seeds; ++i) {
    const int seed = seeded.first_seed + i;
    const FreedMemory freed =
        seed % 4 == 0 ? FreedMemory::kProtected : FreedMemory::kPoisoned;
    const ParityReport report = Compare(
        reference, Record(seeded.grid, nullptr, Asynchronous(seed, freed)));
    EXPECT_TRUE(report.bitwise) << "seed " << seed << "\n"
                                << ParityText(report, {}, 5);
  }
}

TEST_P(AsynchronousParityTest, EventsAloneKeepEveryBit) {
  ExpectEveryBit(GetParam(), TestsEveryCase() ? kSeeds : 1);
}

class AsynchronousSeedsTest : public testing::TestWithParam<SeededCase> {};

TEST_P(AsynchronousSeedsTest, EventsAloneKeepEveryBitUnderEverySeed) {
  ExpectEveryBit(GetParam(), kSeeds);
}

std::string NameOf(const testing::TestParamInfo<SeededCase>& info) {
  return info.param.grid.Name();
}

INSTANTIATE_TEST_SUITE_P(Small, AsynchronousSeedsTest,
                         testing::ValuesIn(Seeded(SmallGrids(), 800)), NameOf);

INSTANTIATE_TEST_SUITE_P(Fp32, AsynchronousParityTest,
                         testing::ValuesIn(Seeded(Fp32Grids(), 0)), NameOf);

INSTANTIATE_TEST_SUITE_P(Grids, AsynchronousParityTest,
                         testing::ValuesIn(Seeded(Selected(AllGrids()), 100)),
                         NameOf);

INSTANTIATE_TEST_SUITE_P(Mmdit, AsynchronousParityTest,
                         testing::ValuesIn(Seeded(MmditGrids(), 300)), NameOf);

INSTANTIATE_TEST_SUITE_P(Moe, AsynchronousParityTest,
                         testing::ValuesIn(Seeded(MoeGrids(), 400)), NameOf);

INSTANTIATE_TEST_SUITE_P(Sparse, AsynchronousParityTest,
                         testing::ValuesIn(Seeded(SparseGrids(), 500)), NameOf);

INSTANTIATE_TEST_SUITE_P(SparseVae, AsynchronousParityTest,
                         testing::ValuesIn(Seeded(SparseVaeGrids(), 600)),
                         NameOf);

INSTANTIATE_TEST_SUITE_P(Fp8, AsynchronousParityTest,
                         testing::ValuesIn(Seeded(Fp8Grids(), 700)), NameOf);

}  // namespace
}  // namespace trireme
