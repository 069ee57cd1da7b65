// Prints the exact step of pipelines beside AMP's and Pipette's formulas, where
// stages and links are alike and where they are not, and for schedules that the
// formulas do not know.

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "scheduler/schedules/orders.h"
#include "scheduler/simulator/simulator.h"
#include "tools/bench/published/closed_forms.h"

namespace trireme {
namespace {

enum class Order { kOneFOneB, kInterleaved, kZeroBubble };

struct Case {
  std::string name;
  Order order = Order::kOneFOneB;
  double message_s = 0.1;
  // Of the third stage, and of the hops to and from it.
  double slow_stage = 1;
  double slow_link = 1;
};

constexpr int32_t kStages = 8;
constexpr int32_t kMicrobatches = 64;

bool PrintCase(const Case& test) {
  const int32_t chunks = test.order == Order::kInterleaved ? 2 : 1;
  std::vector<StageLocation> stages;
  for (int32_t i = 0; i < chunks * kStages; ++i) {
    stages.push_back({i % kStages, i / kStages});
  }
  ComputeOrder order;
  switch (test.order) {
    case Order::kOneFOneB:
      order = OneFOneBOrder(kStages, kMicrobatches);
      break;
    case Order::kInterleaved:
      order = InterleavedOrder(kStages, chunks, kMicrobatches, kStages);
      break;
    case Order::kZeroBubble:
      order = ZeroBubbleH1Order(kStages, kMicrobatches);
      break;
  }
  const Program program = BuildProgram(order, stages, kMicrobatches,
                                       std::vector<int32_t>(stages.size(), 1));
  CostModel cost = UniformCost(program, {.forward_s = 1.0 / chunks,
                                         .backward_s = 2.0 / chunks,
                                         .backward_input_s = 1.0 / chunks,
                                         .backward_weight_s = 1.0 / chunks,
                                         .message_bytes = 1});
  cost.links.assign(kStages * kStages, {.bytes_per_s = 1 / test.message_s});
  for (ChunkCost& chunk : cost.chunks[2]) {
    for (double* seconds :
         {&chunk.forward_s, &chunk.backward_s, &chunk.backward_input_s,
          &chunk.backward_weight_s}) {
      *seconds *= test.slow_stage;
    }
  }
  for (const int32_t other : {1, 3}) {
    cost.links[2 * kStages + other].bytes_per_s /= test.slow_link;
    cost.links[other * kStages + 2].bytes_per_s /= test.slow_link;
  }
  const absl::StatusOr<Simulation> exact = Simulate(program, cost);
  if (!exact.ok()) {
    std::fprintf(stderr, "%s\n", exact.status().ToString().c_str());
    return false;
  }
  ClosedFormInput input;
  input.stage_s.assign(kStages, 3.0);
  input.stage_s[2] *= test.slow_stage;
  input.microbatches = kMicrobatches;
  input.messages_s = 2 * test.message_s * (kStages - 3 + 2 * test.slow_link);
  auto cell = [&](double seconds) {
    return fmt::format("{:.1f} ({:+.1f} %)", seconds,
                       100 * (seconds / exact->step_s - 1));
  };
  fmt::print("{:<44} {:>8.1f} {:>17} {:>17}\n", test.name, exact->step_s,
             cell(AmpStepSeconds(input)), cell(PipetteStepSeconds(input)));
  return true;
}

int Main() {
  fmt::print(
      "8 stages, 64 microbatches, forward 1 s, backward 2 s, messages c\n\n"
      "{:<44} {:>8} {:>17} {:>17}\n",
      "", "exact", "AMP", "Pipette");
  const std::vector<Case> cases = {
      {.name = "1F1B, balanced, c 0.1"},
      {.name = "1F1B, balanced, c 0.3", .message_s = 0.3},
      {.name = "1F1B, one stage 1.2 times as slow", .slow_stage = 1.2},
      {.name = "1F1B, one stage 1.5 times as slow", .slow_stage = 1.5},
      {.name = "1F1B, one stage's links 5 times as slow", .slow_link = 5},
      {.name = "1F1B, one stage's links 15 times as slow", .slow_link = 15},
      {.name = "interleaved, 2 chunks", .order = Order::kInterleaved},
      {.name = "zero bubble H1", .order = Order::kZeroBubble},
      {.name = "zero bubble H1, one stage 1.5 times as slow",
       .order = Order::kZeroBubble,
       .slow_stage = 1.5},
  };
  for (const Case& test : cases) {
    if (!PrintCase(test)) return 1;
  }
  return 0;
}

}  // namespace
}  // namespace trireme

int main() { return trireme::Main(); }
