#include "tests/parity/grids.h"

#include <algorithm>
#include <cstdint>

#include "tests/parity/covering.h"

namespace trireme {
namespace {

// The largest multiple of `factor` that is at most `most`.
int64_t MultipleNear(int64_t most, int64_t factor) {
  return most / factor * factor;
}

}  // namespace

std::vector<GridCase> AllGrids() {
  std::vector<GridCase> cases;
  for (uint32_t tp = 1; tp <= 8; ++tp) {
    for (uint32_t pp = 1; tp * pp <= 8; ++pp) {
      for (uint32_t dp = 1; tp * pp * dp <= 8; ++dp) {
        if (tp * pp * dp == 1) continue;
        cases.push_back({.tp = tp,
                         .pp = pp,
                         .dp = dp,
                         .layers = std::max<int64_t>(4, pp),
                         .heads = MultipleNear(8, tp),
                         .batch = MultipleNear(8, dp)});
      }
    }
  }
  for (const Text text : {Text::kCross, Text::kJoint}) {
    cases.push_back({.tp = 2, .pp = 2, .dp = 2, .text = text});
    cases.push_back({.tp = 4, .pp = 1, .dp = 1, .text = text});
    cases.push_back({.tp = 1, .pp = 4, .dp = 1, .text = text});
  }
  for (const DType dtype :
       {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    cases.push_back({.tp = 2, .pp = 2, .dp = 2, .dtype = dtype});
  }
  for (const char* plan : {"schedule: GPIPE", "recompute: FULL"}) {
    cases.push_back({.tp = 2, .pp = 2, .plan = PlanFromText(plan)});
  }
  cases.push_back({.plan = PlanFromText("microbatches: 4")});
  cases.push_back(
      {.pp = 2,
       .plan = PlanFromText("stages { blocks: 1 } stages { blocks: 3 }")});
  // Sequence parallelism; 4 x 3 tokens over 8 ranks leave a rank with padding
  // only.
  for (const char* plan :
       {"sequence_parallel: true",
        "sequence_parallel: true recompute: SELECTIVE",
        "sequence_parallel: true recompute: FULL recompute_blocks: 1"}) {
    cases.push_back({.tp = 2, .pp = 2, .dp = 2, .plan = PlanFromText(plan)});
    cases.push_back({.tp = 8, .height = 6, .plan = PlanFromText(plan)});
    for (const Text text : {Text::kCross, Text::kJoint}) {
      cases.push_back(
          {.tp = 4, .pp = 2, .text = text, .plan = PlanFromText(plan)});
    }
  }
  // Context parallelism by ring, by head exchange, and by both.
  for (const uint32_t cp : {2, 4, 8}) {
    for (const uint32_t ulysses : {1, 2, 4, 8}) {
      if (ulysses > cp) continue;
      Plan plan;
      plan.set_ulysses(ulysses);
      for (const Text text : {Text::kNone, Text::kCross, Text::kJoint}) {
        // 3 x 4 tokens, so that the last of 8 ranks have padding only.
        cases.push_back({.cp = cp, .text = text, .height = 6, .plan = plan});
      }
    }
  }
  for (const char* plan :
       {"recompute: FULL", "sequence_parallel: true",
        "ulysses: 2 sequence_parallel: true recompute: SELECTIVE"}) {
    for (const Text text : {Text::kNone, Text::kCross, Text::kJoint}) {
      cases.push_back({.tp = 2,
                       .cp = 2,
                       .pp = 2,
                       .text = text,
                       .height = 6,
                       .plan = PlanFromText(plan)});
      cases.push_back({.cp = 2,
                       .pp = 2,
                       .dp = 2,
                       .text = text,
                       .plan = PlanFromText(plan)});
    }
  }
  // Schedules, with uneven stages and several chunks per rank.
  for (const char* plan :
       {"schedule: INTERLEAVED", "schedule: INTERLEAVED chunks_per_rank: 3",
        "schedule: INTERLEAVED microbatch_group: 4 microbatches: 4",
        "schedule: ZB_H1", "schedule: ZB_V",
        "schedule: ZB_V sequence_parallel: true recompute: FULL"}) {
    for (const Text text : {Text::kNone, Text::kJoint}) {
      cases.push_back(
          {.pp = 2, .text = text, .layers = 7, .plan = PlanFromText(plan)});
      cases.push_back({.tp = 2,
                       .pp = 2,
                       .dp = 2,
                       .text = text,
                       .layers = 6,
                       .plan = PlanFromText(plan)});
    }
  }
  // Blocks that stream through the device.
  for (const Text text : {Text::kNone, Text::kJoint}) {
    cases.push_back({.text = text,
                     .plan = PlanFromText(
                         "microbatches: 4 offload { resident_units: 2 }")});
    cases.push_back(
        {.tp = 2,
         .pp = 2,
         .text = text,
         .plan = PlanFromText(
             "sequence_parallel: true offload { resident_units: 1 }")});
    cases.push_back({.pp = 2,
                     .text = text,
                     .layers = 6,
                     .plan = PlanFromText(
                         "recompute: FULL "
                         "offload { resident_units: 1 activations: true }")});
  }
  for (const char* plan :
       {"sharding: OPTIMIZER offload { resident_units: 2 }",
        "sharding: GRADIENTS microbatches: 2 offload { resident_units: 1 }",
        // Sums over ranks of all microbatches' gradients at once, and of each.
        "sharding: PARAMETERS schedule: UNIT_MAJOR microbatches: 2 "
        "offload { resident_units: 2 }",
        "sharding: PARAMETERS recompute: FULL "
        "offload { resident_units: 1 activations: true }"}) {
    cases.push_back({.dp = 4, .plan = PlanFromText(plan)});
    cases.push_back({.tp = 2, .dp = 2, .plan = PlanFromText(plan)});
    if (cases.back().plan.schedule() == Plan::UNIT_MAJOR) continue;
    cases.push_back({.pp = 2, .dp = 2, .plan = PlanFromText(plan)});
  }
  // Other embeddings of positions, and queries and keys without their norm.
  for (const bool sincos : {true, false}) {
    const Dit::Positions positions = sincos ? Dit::SINCOS : Dit::ROPE;
    for (const Text text : {Text::kNone, Text::kJoint}) {
      cases.push_back({.tp = 2,
                       .pp = 2,
                       .dp = 2,
                       .text = text,
                       .positions = positions,
                       .qk_norm = sincos,
                       .plan = PlanFromText("sequence_parallel: true")});
      cases.push_back({.cp = 4,
                       .pp = 2,
                       .text = text,
                       .height = 6,
                       .positions = positions,
                       .qk_norm = sincos,
                       .plan = PlanFromText("ulysses: 2 recompute: FULL")});
    }
  }
  return cases;
}

std::vector<GridCase> Fp32Grids() {
  std::vector<GridCase> cases;
  const auto add = [&](GridCase grid, const char* plan = "") {
    grid.dtype = DType::kFloat32;
    grid.plan = PlanFromText(plan);
    cases.push_back(grid);
  };
  add({.tp = 4, .dp = 2});
  add({.tp = 2, .pp = 2, .dp = 2, .text = Text::kJoint});
  // On 4 rows the samples of this job multiply cross-attention's rounding by a
  // thousand (2e-13 in fp64).
  add({.tp = 2, .pp = 2, .dp = 2, .text = Text::kCross, .height = 6});
  add({}, "microbatches: 8");
  add({.tp = 4}, "sequence_parallel: true");
  add({.tp = 2, .pp = 2, .text = Text::kJoint},
      "sequence_parallel: true recompute: SELECTIVE");
  add({.cp = 4, .height = 6});
  add({.cp = 4, .text = Text::kJoint, .height = 6});
  add({.cp = 4, .height = 6}, "ulysses: 4");
  add({.cp = 4, .text = Text::kJoint, .height = 6}, "ulysses: 2");
  add({.tp = 2, .cp = 2, .pp = 2}, "sequence_parallel: true recompute: FULL");
  add({.pp = 4, .dp = 2}, "schedule: GPIPE");
  add({.pp = 4, .text = Text::kJoint});
  add({.pp = 2, .dp = 2, .layers = 6},
      "schedule: INTERLEAVED chunks_per_rank: 3");
  add({.tp = 2, .pp = 4}, "schedule: ZB_H1");
  add({.tp = 2, .pp = 2, .text = Text::kJoint}, "schedule: ZB_V");
  add({.dp = 8}, "sharding: OPTIMIZER shard_group: 4");
  add({.cp = 2, .pp = 2, .dp = 2}, "sharding: GRADIENTS");
  add({.tp = 2, .dp = 4}, "sharding: PARAMETERS");
  add({.pp = 2, .dp = 2, .text = Text::kJoint},
      "sharding: PARAMETERS schedule: ZB_V");
  return cases;
}

std::vector<GridCase> Selected(const std::vector<GridCase>& cases) {
  if (TestsEveryCase()) return cases;
  std::vector<CoveringCase> known;
  for (const GridCase& grid : cases) {
    known.push_back({.features = grid.Features(),
                     .cost = static_cast<double>(grid.ranks())});
  }
  std::vector<GridCase> selected;
  for (const size_t i : CoverPairs(known)) selected.push_back(cases[i]);
  return selected;
}

}  // namespace trireme
