// Bubbles and memory of the pipeline schedules are those of the literature:
// with p ranks, m microbatches, and F, B, W the seconds of a rank's whole share
// of one microbatch (T = F + B + W).

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "scheduler/plan/plan.h"
#include "scheduler/program/compile.h"
#include "scheduler/program/live_activations_testing.h"
#include "scheduler/schedules/schedule.h"
#include "scheduler/simulator/simulator.h"

namespace trireme {
namespace {

struct Seconds {
  double forward = 1;
  double input = 1;   // B
  double weight = 1;  // W
  double all() const { return forward + input + weight; }
};

// F <= B and B/2 <= W <= F, where the zero-bubble formulas are exact.
constexpr Seconds kCosts[] = {
    {1, 1, 1}, {1, 1.25, 0.75}, {2, 3, 1.5}, {1, 2, 1}, {2, 3, 2}};

Plan PlanOf(Plan::Schedule schedule, uint32_t p, uint32_t m, uint32_t chunks,
            uint32_t group = 0) {
  Plan plan;
  plan.mutable_grid()->set_pp(p);
  plan.set_microbatches(m);
  plan.set_schedule(schedule);
  plan.set_chunks_per_rank(chunks);
  if (group > 0) plan.set_microbatch_group(group);
  if (FindSchedule(schedule)->unit_major) plan.mutable_offload();
  const absl::StatusOr<Plan> resolved =
      ResolvePlan(plan, {.world_size = p,
                         .global_batch = m,
                         .num_blocks = int64_t{p} * chunks,
                         .heads = 0});
  EXPECT_TRUE(resolved.ok()) << resolved.status();
  return *resolved;
}

Program ProgramOf(const Plan& plan) {
  const absl::StatusOr<Program> program = CompilePlan(plan);
  EXPECT_TRUE(program.ok()) << Summary(plan) << ": " << program.status();
  return program.ok() ? *program : Program();
}

Simulation Simulated(const Plan& plan, const Seconds& cost) {
  const Program program = ProgramOf(plan);
  const double v = plan.chunks_per_rank();
  ChunkCost chunk;
  if (plan.has_offload()) chunk.units.resize(1);
  chunk.forward_s = cost.forward / v;
  chunk.backward_s = (cost.input + cost.weight) / v;
  chunk.backward_input_s = cost.input / v;
  chunk.backward_weight_s = cost.weight / v;
  const absl::StatusOr<Simulation> simulation =
      Simulate(program, UniformCost(program, chunk));
  EXPECT_TRUE(simulation.ok()) << simulation.status();
  return *simulation;
}

double Bubble(const Plan& plan, const Seconds& cost) {
  return Simulated(plan, cost).step_s - plan.microbatches() * cost.all();
}

TEST(Schedules, GPipeAndOneFOneBIdleForOneMicrobatchPerOtherRank) {
  for (const Plan::Schedule schedule : {Plan::GPIPE, Plan::ONE_F_ONE_B}) {
    for (uint32_t p = 2; p <= 8; ++p) {
      for (const uint32_t m : {p, 2 * p, 3 * p + 1}) {
        for (const Seconds& cost : kCosts) {
          const Plan plan = PlanOf(schedule, p, m, 1);
          EXPECT_NEAR(Bubble(plan, cost), (p - 1) * cost.all(), 1e-9)
              << Summary(plan);
          const auto live = PeakLiveActivations(ProgramOf(plan));
          for (uint32_t rank = 0; rank < p; ++rank) {
            EXPECT_EQ(live[rank],
                      schedule == Plan::GPIPE ? m : std::min(m, p - rank));
          }
        }
      }
    }
  }
}

TEST(Schedules, InterleavingDividesTheBubbleByTheChunks) {
  for (uint32_t p = 2; p <= 8; ++p) {
    for (const uint32_t chunks : {2, 3, 4}) {
      for (const uint32_t group : {p, p + 1}) {
        const uint32_t m = 3 * group;
        const Plan plan = PlanOf(Plan::INTERLEAVED, p, m, chunks, group);
        for (const Seconds& cost : kCosts) {
          EXPECT_NEAR(Bubble(plan, cost), (p - 1) * cost.all() / chunks, 1e-9)
              << Summary(plan) << " group " << group;
        }
        const auto live = PeakLiveActivations(ProgramOf(plan));
        for (uint32_t rank = 0; rank < p; ++rank) {
          EXPECT_EQ(live[rank],
                    std::min(m * chunks,
                             (chunks - 1) * group + 2 * (p - 1 - rank) + 1))
              << Summary(plan) << " rank " << rank;
        }
      }
    }
  }
}

// The most microbatches of which a rank has the input gradients and not yet the
// weight gradients, over all its chunks.
uint32_t WeightsHeld(const Plan& plan, uint32_t rank) {
  const Program program = ProgramOf(plan);
  uint32_t held = 0, most = 0;
  for (const Instruction& instruction : program.ranks[rank]) {
    if (instruction.kind == InstructionKind::kBackwardInput) ++held;
    if (instruction.kind == InstructionKind::kBackwardWeight) --held;
    most = std::max(most, held);
  }
  return most;
}

TEST(Schedules, ZeroBubbleH1FillsTheDrainInTheMemoryOfOneFOneB) {
  for (uint32_t p = 2; p <= 8; ++p) {
    for (const uint32_t m : {p, 2 * p, 3 * p + 1}) {
      const Plan plan = PlanOf(Plan::ZB_H1, p, m, 1);
      for (const Seconds& cost : kCosts) {
        EXPECT_NEAR(Bubble(plan, cost),
                    (p - 1) * std::max(cost.forward,
                                       cost.forward + cost.input - cost.weight),
                    1e-9)
            << Summary(plan);
      }
      const auto live = PeakLiveActivations(ProgramOf(plan));
      for (uint32_t rank = 0; rank < p; ++rank) {
        EXPECT_EQ(live[rank], p - rank);
        // What weight gradients need is held from the input gradients on, of
        // at most p microbatches.
        EXPECT_EQ(WeightsHeld(plan, rank), std::min(rank + 1, m))
            << Summary(plan) << " rank " << rank;
      }
    }
  }
}

double LeastBubbleOfV(uint32_t p, const Seconds& cost) {
  return (p - 1) * std::max(cost.forward, cost.input) / 2;
}

TEST(Schedules, ZeroBubbleVHalvesItAndHoldsTheSameEverywhere) {
  for (uint32_t p = 2; p <= 8; ++p) {
    for (const uint32_t m : {2 * p - 1, 3 * p, 4 * p + 1}) {
      const Plan plan = PlanOf(Plan::ZB_V, p, m, 2);
      for (const Seconds& cost : kCosts) {
        EXPECT_NEAR(Bubble(plan, cost), LeastBubbleOfV(p, cost), 1e-9)
            << Summary(plan);
        EXPECT_LT(Bubble(plan, cost),
                  Bubble(PlanOf(Plan::ZB_H1, p, m, 1), cost))
            << Summary(plan);
      }
      // With other costs it is longer, but never longer than 1F1B's.
      for (const Seconds& cost :
           {Seconds{1, 1, 0.25}, Seconds{3, 1, 1}, Seconds{3, 2, 2},
            Seconds{1, 3, 1}, Seconds{1, 1, 3}, Seconds{1, 2, 0.5}}) {
        EXPECT_GE(Bubble(plan, cost), LeastBubbleOfV(p, cost) - 1e-9)
            << Summary(plan);
        EXPECT_LE(Bubble(plan, cost), (p - 1) * cost.all() + 1e-9)
            << Summary(plan);
      }
      // 2p chunks of half a rank's share each.
      for (const int32_t live : PeakLiveActivations(ProgramOf(plan))) {
        EXPECT_EQ(live, 2 * p) << Summary(plan);
      }
    }
  }
}

// Every program passes the validator's rules, where a send blocks until its
// receive is posted; gradients of a chunk accumulate in the microbatches' order
// in all of them, which is what makes schedules equal bit for bit.
TEST(Schedules, AllAreDeadlockFreeAndAccumulateInOrder) {
  for (uint32_t p = 1; p <= 8; ++p) {
    for (uint32_t m = 1; m <= 3 * p + 1; ++m) {
      std::vector<Plan> plans = {
          PlanOf(Plan::GPIPE, p, m, 1), PlanOf(Plan::ONE_F_ONE_B, p, m, 1),
          PlanOf(Plan::ZB_H1, p, m, 1), PlanOf(Plan::ZB_V, p, m, 2)};
      if (m % p == 0) {
        for (const uint32_t chunks : {1, 2, 3, 4}) {
          plans.push_back(PlanOf(Plan::INTERLEAVED, p, m, chunks));
        }
      }
      // Groups that leave a rest, which is then a smaller group.
      for (uint32_t group = p; group < m; ++group) {
        if (m % group < p) continue;
        plans.push_back(PlanOf(Plan::INTERLEAVED, p, m, 2, group));
        plans.push_back(PlanOf(Plan::INTERLEAVED, p, m, 3, group));
      }
      for (const Plan& plan : plans) {
        const Program program = ProgramOf(plan);
        for (const auto& list : program.ranks) {
          std::map<std::pair<InstructionKind, int32_t>, int32_t> last;
          for (const Instruction& instruction : list) {
            if (instruction.resource != Resource::kCompute ||
                instruction.microbatch < 0) {
              continue;
            }
            const auto [before, first] =
                last.try_emplace({instruction.kind, instruction.chunk}, -1);
            EXPECT_EQ(instruction.microbatch, before->second + 1)
                << Summary(plan) << ": " << ToText(instruction);
            before->second = instruction.microbatch;
          }
        }
      }
    }
  }
}

// Bounds on memory refuse plans by these counts without simulating them.
TEST(Schedules, WhatIsInFlightIsWhatProgramsHold) {
  for (const Schedule& schedule : AllSchedules()) {
    for (const uint32_t p : {1, 2, 5}) {
      if (schedule.unit_major && p > 1) continue;
      for (const uint32_t m : {p, 3 * p}) {
        const Plan plan = PlanOf(schedule.id, p, m, schedule.default_chunks);
        EXPECT_EQ(MostInFlight(OrderOf(plan)),
                  PeakLiveActivations(ProgramOf(plan)))
            << Summary(plan);
        InFlightCounts counts;
        EXPECT_EQ(counts.Of(plan), MostInFlight(OrderOf(plan)));
      }
    }
  }
}

// A row that forgets what its order does would put costs in the wrong place.
TEST(Schedules, RowsSayWhatTheirOrdersDo) {
  for (int id = Plan::Schedule_MIN + 1; id <= Plan::Schedule_MAX; ++id) {
    const Schedule* schedule = FindSchedule(static_cast<Plan::Schedule>(id));
    ASSERT_NE(schedule, nullptr) << id;
    const Plan plan = PlanOf(schedule->id, schedule->unit_major ? 1 : 3, 6,
                             schedule->default_chunks);
    EXPECT_EQ(plan.has_microbatch_group(), schedule->groups_microbatches);
    for (const auto& steps : OrderOf(plan)) {
      std::set<int32_t> chunks;
      for (const ComputeStep& step : steps) {
        chunks.insert(step.chunk);
        EXPECT_EQ(step.kind == InstructionKind::kBackward,
                  step.kind != InstructionKind::kForward &&
                      !schedule->splits_backward);
      }
      EXPECT_EQ(chunks.size(), plan.chunks_per_rank());
    }
  }
}

// A rank's computations in order: "F0.1" is microbatch 0's forward of chunk 1.
std::string ComputeOrder(const Program& program, int32_t rank) {
  std::string order;
  for (const Instruction& instruction : program.ranks[rank]) {
    if (instruction.microbatch < 0) continue;
    std::string_view letter;
    switch (instruction.kind) {
      case InstructionKind::kForward:
        letter = "F";
        break;
      case InstructionKind::kBackward:
      case InstructionKind::kBackwardInput:
        letter = "B";
        break;
      case InstructionKind::kBackwardWeight:
        letter = "W";
        break;
      default:
        continue;
    }
    order += fmt::format("{}{}{}.{}", order.empty() ? "" : " ", letter,
                         instruction.microbatch, instruction.chunk);
  }
  return order;
}

// Written by hand from the papers' rules. Two orders may have one bubble and
// one peak: only this sees that a schedule is the one that its name says.
TEST(Schedules, GoldenOrderOfInterleaving) {
  // Narayanan et al., SC'21: 2 ranks, 2 chunks, groups of 2 microbatches.
  const Program program = ProgramOf(PlanOf(Plan::INTERLEAVED, 2, 4, 2, 2));
  EXPECT_EQ(ComputeOrder(program, 0),
            "F0.0 F1.0 F0.1 F1.1 F2.0 B0.1 F3.0 B1.1 F2.1 B0.0 F3.1 B1.0 "
            "B2.1 B3.1 B2.0 B3.0");
  EXPECT_EQ(ComputeOrder(program, 1),
            "F0.0 F1.0 F0.1 B0.1 F1.1 B1.1 F2.0 B0.0 F3.0 B1.0 F2.1 B2.1 "
            "F3.1 B3.1 B2.0 B3.0");
}

TEST(Schedules, GoldenOrderOfZeroBubbleH1) {
  // Qi et al., ICLR'24: weight gradients begin once as many microbatches have
  // passed as the rank is deep, and fill the drain.
  const Program program = ProgramOf(PlanOf(Plan::ZB_H1, 2, 4, 1));
  EXPECT_EQ(ComputeOrder(program, 0),
            "F0.0 F1.0 B0.0 W0.0 F2.0 B1.0 W1.0 F3.0 B2.0 W2.0 B3.0 W3.0");
  EXPECT_EQ(ComputeOrder(program, 1),
            "F0.0 B0.0 F1.0 B1.0 W0.0 F2.0 B2.0 W1.0 F3.0 B3.0 W2.0 W3.0");
}

TEST(Schedules, GoldenOrderOfZeroBubbleV) {
  // Qi et al., NeurIPS'24: chunk 0 goes down the V, chunk 1 comes back up.
  const Program program = ProgramOf(PlanOf(Plan::ZB_V, 2, 3, 2));
  EXPECT_EQ(ComputeOrder(program, 0),
            "F0.0 F1.0 F2.0 F0.1 B0.1 W0.1 F1.1 B1.1 W1.1 B0.0 W0.0 F2.1 "
            "B2.1 W2.1 B1.0 W1.0 B2.0 W2.0");
  EXPECT_EQ(ComputeOrder(program, 1),
            "F0.0 F0.1 F1.0 F1.1 B0.1 W0.1 F2.0 B0.0 W0.0 F2.1 B1.1 W1.1 "
            "B1.0 B2.1 B2.0 W1.0 W2.1 W2.0");
}

}  // namespace
}  // namespace trireme
