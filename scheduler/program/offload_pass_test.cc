#include "scheduler/program/offload_pass.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "scheduler/program/live_activations_testing.h"
#include "scheduler/program/program_builder.h"
#include "scheduler/program/validator.h"
#include "scheduler/schedules/orders.h"
#include "scheduler/simulator/simulator.h"

namespace trireme {
namespace {

// One device with so many units, of which `resident` are on it at once.
Program OneDevice(int32_t units, int32_t resident, int32_t microbatches = 1) {
  return OffloadUnits(BuildProgram(OneFOneBOrder(1, microbatches),
                                   OneStagePerRank(1), microbatches, {units}),
                      resident);
}

CostModel UnitCosts(const Program& program, const UnitCost& cost) {
  CostModel model;
  model.chunks.resize(program.ranks.size());
  for (size_t stage = 0; stage < program.stages.size(); ++stage) {
    model.chunks[program.stages[stage].rank].push_back(
        {.units = std::vector<UnitCost>(program.offload->units[stage], cost)});
  }
  return model;
}

Simulation Simulated(const Program& program, const CostModel& cost,
                     const MemoryModel* memory = nullptr) {
  const absl::Status valid = ValidateProgram(program);
  EXPECT_TRUE(valid.ok()) << valid;
  const absl::StatusOr<Simulation> result = Simulate(program, cost, memory);
  EXPECT_TRUE(result.ok()) << result.status();
  if (!result.ok()) return {};
  for (const RankTime& rank : result->ranks) {
    EXPECT_NEAR(rank.compute_s + rank.bubble_s + rank.exposed_message_s +
                    rank.exposed_other_s + rank.exposed_copy_s +
                    rank.exposed_host_s + rank.processor_wait_s,
                result->step_s, 1e-9 * result->step_s);
  }
  return *result;
}

// How many instructions of the kind the rank has before it clips.
int64_t CountBeforeClip(const Program& program, int32_t rank,
                        InstructionKind kind) {
  int64_t count = 0;
  for (const Instruction& instruction : program.ranks[rank]) {
    if (instruction.kind == InstructionKind::kClipGradients) break;
    count += instruction.kind == kind;
  }
  return count;
}

// When forward and backward of all units are through with a microbatch.
double PassEnd(const Program& program, const Simulation& simulation,
               int32_t microbatch = 0) {
  const std::vector<Instruction>& list = program.ranks[0];
  double end = 0;
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i].kind != InstructionKind::kBackward) continue;
    if (list[i].microbatch > microbatch) continue;
    end = std::max(end, simulation.times[0][i].end_s);
  }
  return end;
}

// Of a microbatch that finds on the device what the one before it has left.
double PassSeconds(int32_t units, int32_t resident, const UnitCost& cost) {
  const Program program = OneDevice(units, resident, /*microbatches=*/2);
  const Simulation simulation = Simulated(program, UnitCosts(program, cost));
  return PassEnd(program, simulation, 1) - PassEnd(program, simulation, 0);
}

// 24 units, forward 1, backward 2: 72 where copies hide. A place that is
// refilled as soon as its unit is through hides a copy of 0.9 behind two
// places; where the link is the bottleneck, places buy time.
TEST(OffloadPass, APassTakesWhatTheModelOfSuperpipelineSays) {
  const auto pass = [](int32_t resident, double copy_s) {
    return PassSeconds(24, resident,
                       {.forward_s = 1, .backward_s = 2, .fetch_s = copy_s});
  };
  EXPECT_NEAR(pass(2, 0.9), 72.0, 1e-9);
  EXPECT_NEAR(pass(24, 0.9), 72.0, 1e-9);
  EXPECT_NEAR(pass(2, 2), 94.0, 1e-9);
  EXPECT_NEAR(pass(8, 2), 82.0, 1e-9);
  EXPECT_NEAR(pass(16, 2), 72.0, 1e-9);
  // With one place a copy never runs beside compute: all but the two units at
  // the ends come in twice.
  EXPECT_NEAR(pass(1, 0.9), 72.0 + 2 * 23 * 0.9, 1e-9);
}

// Nothing is on the device when a step starts: the first unit's copy hides
// behind nothing, and all units cross under the first forward.
TEST(OffloadPass, AStepsFirstForwardBringsAllUnits) {
  const auto step = [](int32_t resident, double copy_s) {
    const Program program = OneDevice(24, resident);
    return Simulated(program, UnitCosts(program, {.forward_s = 1,
                                                  .backward_s = 2,
                                                  .fetch_s = copy_s}))
        .step_s;
  };
  for (const int32_t resident : {2, 8, 24}) {
    EXPECT_NEAR(step(resident, 0.9), 0.9 + 72, 1e-9) << resident;
    EXPECT_NEAR(step(resident, 2), (24 * 2 + 1) + 48, 1e-9) << resident;
  }
}

TEST(OffloadPass, AMicrobatchCopiesEachUnitThatDoesNotStayTwice) {
  for (const int32_t resident : {1, 2, 3, 8, 23, 24}) {
    for (const int32_t microbatches : {1, 2, 5}) {
      const Program program = OneDevice(24, resident, microbatches);
      EXPECT_TRUE(ValidateProgram(program).ok());
      EXPECT_EQ(CountBeforeClip(program, 0, InstructionKind::kFetch),
                2 * (24 - resident) * microbatches + resident)
          << resident << " " << microbatches;
      EXPECT_EQ(CountBeforeClip(program, 0, InstructionKind::kSaveGradients),
                24 * microbatches);
    }
  }
}

// A unit of q bf16 parameters is copied in 2 q / B seconds and computes b
// tokens in 2 q b / F: from b = F / B tokens on its copies hide.
TEST(OffloadPass, CopiesHideFromTheBreakEvenTokensOn) {
  const double flops = 400e12, link = 50e9, parameters = 100e6;
  const auto exposed_share = [&](double tokens) {
    const double forward_s = 2 * parameters * tokens / flops;
    return PassSeconds(100, 2,
                       {.forward_s = forward_s,
                        .backward_s = 2 * forward_s,
                        .fetch_s = 2 * parameters / link}) /
               (100 * 3 * forward_s) -
           1;
  };
  EXPECT_NEAR(exposed_share(8000), 0, 1e-9);
  EXPECT_NEAR(exposed_share(16000), 0, 1e-9);
  EXPECT_GT(exposed_share(7500), 0.02);
  // Half as many tokens: the forward takes as long as its copies, twice what
  // it computes, and the backward just hides them.
  EXPECT_NEAR(exposed_share(4000), 1.0 / 3, 0.01);
}

// 10 billion parameters, recomputation, 400 TFLOP/s, 50 GB/s each way, Adam at
// 28 bytes a parameter over 200 GB/s: the backward, and the longest of forward,
// updates and copies.
TEST(OffloadPass, AStepHasItsUpdatesUnderItsForward) {
  const double parameters = 10e9, flops = 4e14, link = 50e9, host = 200e9;
  const int32_t units = 200;
  const auto step_s = [&](double tokens) {
    const double forward_s = 2 * parameters * tokens / flops / units;
    const Program program = OneDevice(units, 2);
    return Simulated(
               program,
               UnitCosts(program,
                         {.forward_s = forward_s,
                          .backward_s = 3 * forward_s,
                          .fetch_s = 2 * parameters / link / units,
                          .save_gradients_s = 2 * parameters / link / units,
                          .update_s = 28 * parameters / host / units}))
        .step_s;
  };
  EXPECT_NEAR(step_s(4096), 2.0, 0.05);
  EXPECT_NEAR(step_s(16384), 3.9, 0.05);
  EXPECT_NEAR(step_s(65536), 13.1, 0.05);
}

// In the order in which the forward needs them, each just before it: whoever
// carries out the list has given the device all that comes before.
TEST(OffloadPass, UpdatesComeOneByOneBeforeTheirForwards) {
  for (const int32_t resident : {1, 2, 4}) {
    const Program program = OneDevice(4, resident, /*microbatches=*/2);
    std::vector<std::string> order;
    for (const Instruction& instruction : program.ranks[0]) {
      if (instruction.kind == InstructionKind::kUpdate ||
          (instruction.kind == InstructionKind::kForward &&
           instruction.microbatch == 0)) {
        order.push_back(fmt::format(
            "{} {}", InstructionKindName(instruction.kind), instruction.unit));
      }
    }
    EXPECT_EQ(order, (std::vector<std::string>{
                         "Update 0", "Forward 0", "Update 1", "Forward 1",
                         "Update 2", "Forward 2", "Update 3", "Forward 3"}))
        << resident;
  }
}

// The same with all microbatches through a unit before the next.
Program UnitMajor(int32_t units, int32_t resident, int32_t microbatches) {
  return OffloadUnits(BuildProgram(GPipeOrder(1, microbatches),
                                   OneStagePerRank(1), microbatches, {units}),
                      resident, {.unit_major = true});
}

TEST(OffloadPass, UnitMajorRunsAllMicrobatchesThroughAUnit) {
  const Program program = UnitMajor(3, 2, 2);
  std::string order;
  for (const Instruction& instruction : program.ranks[0]) {
    switch (instruction.kind) {
      case InstructionKind::kForward:
        order +=
            fmt::format("F{}.{} ", instruction.microbatch, instruction.unit);
        break;
      case InstructionKind::kBackward:
        order +=
            fmt::format("B{}.{} ", instruction.microbatch, instruction.unit);
        break;
      case InstructionKind::kSaveGradients:
        order += fmt::format("S{} ", instruction.unit);
        break;
      case InstructionKind::kUpdate:
        order += fmt::format("U{} ", instruction.unit);
        break;
      default:
        break;
    }
  }
  EXPECT_EQ(order,
            "U0 F0.0 F1.0 U1 F0.1 F1.1 U2 F0.2 F1.2 "
            "B0.2 B1.2 S2 B0.1 B1.1 S1 B0.0 B1.0 S0 ");
}

// Twice a step, and not a microbatch, but for those that stay.
TEST(OffloadPass, UnitMajorCopiesEachUnitTwiceAStep) {
  for (const int32_t resident : {1, 2, 8, 24}) {
    for (const int32_t microbatches : {1, 2, 5}) {
      const Program program = UnitMajor(24, resident, microbatches);
      const absl::Status valid = ValidateProgram(program);
      EXPECT_TRUE(valid.ok()) << valid;
      EXPECT_EQ(CountBeforeClip(program, 0, InstructionKind::kFetch),
                2 * 24 - resident);
      EXPECT_EQ(CountBeforeClip(program, 0, InstructionKind::kSaveGradients),
                24);
    }
  }
}

// A copy as long as three forwards hides behind four of them, and so does an
// update; one after the other microbatches would wait for each.
TEST(OffloadPass, UnitMajorHidesCopiesAndUpdatesBehindAllMicrobatches) {
  const UnitCost cost = {.forward_s = 1,
                         .backward_s = 2,
                         .fetch_s = 3,
                         .save_gradients_s = 7,
                         .update_s = 3.5};
  const Program program = UnitMajor(24, 2, 4);
  const Simulation simulation = Simulated(program, UnitCosts(program, cost));
  // The first unit comes behind its update, the last gradients leave.
  EXPECT_NEAR(simulation.step_s, 3.5 + 3 + 4 * 24 * 3 + 7, 1e-9);
  EXPECT_EQ(PeakLiveActivations(program)[0], 4);
  const Program by_microbatch = OneDevice(24, 2, 4);
  EXPECT_GT(Simulated(by_microbatch, UnitCosts(by_microbatch, cost)).step_s,
            1.5 * simulation.step_s);
}

// Idle time behind copies and behind the host's optimizer is told apart.
TEST(OffloadPass, IdleTimeIsBookedByItsCause) {
  const auto rank_of = [](double fetch_s, double update_s) {
    const Program program = OneDevice(24, 2);
    return Simulated(program, UnitCosts(program, {.forward_s = 1,
                                                  .backward_s = 2,
                                                  .fetch_s = fetch_s,
                                                  .update_s = update_s}))
        .ranks[0];
  };
  // A slow link waits for the host once.
  const RankTime slow_link = rank_of(2, 0.5);
  EXPECT_NEAR(slow_link.compute_s, 72, 1e-9);
  EXPECT_NEAR(slow_link.exposed_host_s, 0.5, 1e-9);
  EXPECT_NEAR(slow_link.exposed_copy_s, 24 * 2 + 1 - 24, 1e-9);
  // Behind a slow host a copy is waited for once.
  const RankTime slow_host = rank_of(0.25, 3);
  EXPECT_NEAR(slow_host.compute_s, 72, 1e-9);
  EXPECT_NEAR(slow_host.exposed_host_s, 3 + 23 * 2, 1e-9);
  EXPECT_NEAR(slow_host.exposed_copy_s, 0.25, 1e-9);
}

// Gradients that leave more slowly than backwards make them hold these up.
TEST(OffloadPass, ABackwardWaitsForAGradientBuffer) {
  const Program program = OneDevice(24, 24);
  const Simulation simulation = Simulated(
      program,
      UnitCosts(program,
                {.forward_s = 1, .backward_s = 2, .save_gradients_s = 3}));
  // The first backward ends at 26; from then on gradients leave without pause.
  EXPECT_NEAR(simulation.step_s, 24 + 2 + 24 * 3, 1e-9);
  // The last backward starts when the gradients of the last but two have left.
  EXPECT_NEAR(PassEnd(program, simulation), 24 + 2 + 22 * 3 + 2, 1e-9);
}

TEST(OffloadPass, ADeviceHoldsAsManyUnitsAsThePlanSays) {
  const int32_t units = 12;
  for (const int32_t resident : {1, 2, 5, 12}) {
    const Program program = OneDevice(units, resident, 3);
    MemoryModel memory;
    memory.ranks.push_back(
        {.always = {.parameters = 7},
         .chunks = {
             {.activation_bytes = units * 10,
              .units = std::vector<UnitMemory>(
                  units, {.parameter_bytes = 1000, .activation_bytes = 10})}}});
    const Simulation simulation = Simulated(
        program,
        UnitCosts(program, {.forward_s = 1, .backward_s = 2, .fetch_s = 1.5}),
        &memory);
    EXPECT_EQ(simulation.peak_memory[0].parameters, resident * 1000 + 7);
    EXPECT_EQ(simulation.peak_memory[0].activations, units * 10);
    EXPECT_EQ(PeakLiveActivations(program)[0], 1);
    const RankPeak in_order = PeakInListOrder(program, 0, memory.ranks[0]);
    EXPECT_EQ(in_order.at_peak.total(), simulation.peak_memory[0].total());
    memory.ranks[0].limit_bytes = in_order.at_peak.total();
    EXPECT_TRUE(ValidateMemory(program, memory).ok());
    --memory.ranks[0].limit_bytes;
    EXPECT_EQ(ValidateMemory(program, memory).code(),
              absl::StatusCode::kResourceExhausted);
  }
}

// The same with what units keep of their inputs on the host meanwhile.
Program WithActivations(int32_t units, int32_t microbatches,
                        bool unit_major = false) {
  return OffloadUnits(BuildProgram(GPipeOrder(1, microbatches),
                                   OneStagePerRank(1), microbatches, {units}),
                      2, {.unit_major = unit_major, .activations = true});
}

// Nothing else that they keep.
MemoryModel InputMemory(int32_t units, int64_t input_bytes) {
  ChunkMemory chunk;
  chunk.activation_bytes = units * input_bytes;
  chunk.units.assign(
      units, {.activation_bytes = input_bytes, .input_bytes = input_bytes});
  return {.ranks = {{.chunks = {chunk}}}};
}

TEST(OffloadPass, ADeviceHoldsTheInputsThatAreAtWorkHoweverManyThereAre) {
  for (const int32_t units : {6, 24, 48}) {
    for (const int32_t microbatches : {1, 3}) {
      for (const bool unit_major : {false, true}) {
        const Program program =
            WithActivations(units, microbatches, unit_major);
        const MemoryModel memory = InputMemory(units, 100);
        const Simulation simulation =
            Simulated(program,
                      UnitCosts(program, {.forward_s = 1,
                                          .backward_s = 3,
                                          .save_activation_s = 0.9,
                                          .load_activation_s = 0.9}),
                      &memory);
        // One that computes and one on its way; and of several microbatches one
        // that stays, as its backward follows at once.
        EXPECT_EQ(simulation.peak_memory[0].activations,
                  microbatches == 1 ? 200 : 300)
            << units << " units, " << microbatches << " microbatches"
            << (unit_major ? ", unit-major" : "");
        // All others are on the host before the first comes back.
        EXPECT_GE(InputBytesOnHost(program, 0, memory.ranks[0]),
                  100 * (units * microbatches - 3));
        EXPECT_LT(InputBytesOnHost(program, 0, memory.ranks[0]),
                  100 * units * microbatches);
        // Without copies of weights nothing is waited for.
        EXPECT_NEAR(PassEnd(program, simulation, microbatches - 1),
                    4 * units * microbatches, 1e-9);
      }
    }
  }
}

// Forwards take 1 and backwards 3. Saves that take 2 end when the last unit
// that leaves has, long after the forward, and the first load waits for the
// last save alone where it is of that unit; loads that take 4 set the pace of
// the backward.
TEST(OffloadPass, InputsThatDoNotHideAreWaitedFor) {
  constexpr int32_t kUnits = 24;
  const Program program = WithActivations(kUnits, 1);
  const auto pass = [&](double save_s, double load_s) {
    return PassEnd(
        program,
        Simulated(program, UnitCosts(program, {.forward_s = 1,
                                               .backward_s = 3,
                                               .save_activation_s = save_s,
                                               .load_activation_s = load_s})));
  };
  EXPECT_NEAR(pass(0.9, 2.9), 4 * kUnits, 1e-9);
  // 22 leave from 1 on; the last of them is the first to come back, and the
  // other backwards follow it.
  EXPECT_NEAR(pass(2, 0.5), 1 + 22 * 2 + 0.5 + 22 * 3, 1e-9);
  // The first load starts with the backward of the last unit but one.
  EXPECT_NEAR(pass(0.5, 4), kUnits + 3 + 22 * 4 + 3, 1e-9);
}

// Every schedule with whole backwards, ranks with several chunks and with fewer
// units than places.
TEST(OffloadPass, PipelinesOfEveryScheduleStayValid) {
  for (const int32_t resident : {1, 2, 4, 9}) {
    for (const auto& [ranks, activations] :
         {std::pair(1, false), std::pair(2, false), std::pair(4, false),
          std::pair(1, true), std::pair(2, true), std::pair(4, true)}) {
      const int32_t microbatches = 2 * ranks;
      std::vector<int32_t> buckets(ranks);
      for (int32_t rank = 0; rank < ranks; ++rank) buckets[rank] = 1 + rank;
      for (const bool gpipe : {true, false}) {
        const Program program = OffloadUnits(
            BuildProgram(gpipe ? GPipeOrder(ranks, microbatches)
                               : OneFOneBOrder(ranks, microbatches),
                         OneStagePerRank(ranks), microbatches, buckets),
            resident, {.activations = activations});
        const absl::Status valid = ValidateProgram(program);
        EXPECT_TRUE(valid.ok()) << valid;
      }
      std::vector<StageLocation> stages;
      for (const int32_t chunk : {0, 1}) {
        for (int32_t rank = 0; rank < ranks; ++rank) {
          stages.push_back({.rank = rank, .chunk = chunk});
        }
      }
      const Program program = OffloadUnits(
          BuildProgram(InterleavedOrder(ranks, 2, microbatches, ranks), stages,
                       microbatches, std::vector<int32_t>(2 * ranks, 3)),
          resident, {.activations = activations});
      const absl::Status valid = ValidateProgram(program);
      EXPECT_TRUE(valid.ok()) << valid;
    }
  }
}

// Stages of a pipeline stream beside one another: with copies that hide, a
// pipeline takes what it takes without offload, and the first copy.
TEST(OffloadPass, APipelineTakesAsLongAsWithoutWhereCopiesHide) {
  const int32_t ranks = 4, microbatches = 8, units = 6;
  const Program program = OffloadUnits(
      BuildProgram(GPipeOrder(ranks, microbatches), OneStagePerRank(ranks),
                   microbatches, std::vector<int32_t>(ranks, units)),
      2);
  const Simulation simulation = Simulated(
      program,
      UnitCosts(program, {.forward_s = 1, .backward_s = 2, .fetch_s = 0.9}));
  double end = 0;
  for (size_t i = 0; i < program.ranks[0].size(); ++i) {
    if (program.ranks[0][i].kind != InstructionKind::kBackward) continue;
    end = std::max(end, simulation.times[0][i].end_s);
  }
  EXPECT_NEAR(end, 0.9 + (microbatches + ranks - 1) * units * 3, 1e-9);
}

}  // namespace
}  // namespace trireme
