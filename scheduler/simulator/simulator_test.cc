#include "scheduler/simulator/simulator.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "gtest/gtest.h"
#include "scheduler/program/live_activations_testing.h"
#include "scheduler/program/validator.h"
#include "scheduler/schedules/orders.h"

namespace trireme {
namespace {

Program Build(const ComputeOrder& order, int32_t microbatches,
              int32_t buckets = 1) {
  const int32_t ranks = static_cast<int32_t>(order.size());
  return BuildProgram(order, OneStagePerRank(ranks), microbatches,
                      std::vector<int32_t>(ranks, buckets));
}

Simulation Simulated(const Program& program, const CostModel& cost,
                     const MemoryModel* memory = nullptr) {
  const absl::StatusOr<Simulation> result = Simulate(program, cost, memory);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? *result : Simulation();
}

void ExpectPartsSumToStep(const Simulation& result) {
  for (const RankTime& rank : result.ranks) {
    EXPECT_NEAR(rank.compute_s + rank.bubble_s + rank.exposed_message_s +
                    rank.exposed_other_s + rank.exposed_copy_s +
                    rank.exposed_host_s + rank.processor_wait_s,
                result.step_s, 1e-9);
  }
}

// The table of pipeline schedules: bubble (p - 1) T on every rank, peak live
// activations m (GPipe) and min(m, p - r) (1F1B).
TEST(Simulator, BubbleAndPeakActivationsMatchTheClosedForms) {
  const double kForward = 1, kBackward = 2;
  for (int32_t p = 1; p <= 8; ++p) {
    for (const int32_t m : {1, 2, 3, 5, 8, 16, 32}) {
      for (const bool gpipe : {true, false}) {
        const Program program =
            Build(gpipe ? GPipeOrder(p, m) : OneFOneBOrder(p, m), m);
        const Simulation result =
            Simulated(program, UniformCost(program, {.forward_s = kForward,
                                                     .backward_s = kBackward}));
        EXPECT_DOUBLE_EQ(result.step_s, (m + p - 1) * (kForward + kBackward));
        ExpectPartsSumToStep(result);
        const std::vector<int32_t> live = PeakLiveActivations(program);
        for (int32_t r = 0; r < p; ++r) {
          EXPECT_DOUBLE_EQ(result.ranks[r].bubble_s,
                           (p - 1) * (kForward + kBackward))
              << p << " " << m << " " << gpipe << " " << r;
          EXPECT_EQ(live[r], gpipe ? m : std::min(m, p - r));
        }
      }
    }
  }
}

// One microbatch passes p stages up and down: every hop is exposed.
TEST(Simulator, LatencyAndBandwidthOfEachHopDelayOneMicrobatch) {
  const Program program = Build(OneFOneBOrder(3, 1), 1);
  CostModel cost = UniformCost(
      program, {.forward_s = 1, .backward_s = 2, .message_bytes = 100});
  cost.default_link = {.latency_s = 0.5, .bytes_per_s = 50};
  const Simulation result = Simulated(program, cost);
  EXPECT_DOUBLE_EQ(result.step_s, 3 * (1 + 2) + 4 * (0.5 + 100 / 50.0));
  ExpectPartsSumToStep(result);
  // Rank 1 sees one hop on the way up and one on the way down.
  EXPECT_DOUBLE_EQ(result.ranks[1].exposed_message_s, 2 * 2.5);
}

TEST(Simulator, LinksHaveTheirOwnSpeedInEachDirection) {
  const Program program = Build(OneFOneBOrder(2, 1), 1);
  CostModel cost = UniformCost(program, {.message_bytes = 10});
  cost.links.resize(4);
  cost.links[0 * 2 + 1].bytes_per_s = 10;  // up: 1 s
  cost.links[1 * 2 + 0].bytes_per_s = 2;   // down: 5 s
  EXPECT_DOUBLE_EQ(Simulated(program, cost).step_s, 6);
}

// Where the link is slower than the stages, messages queue on it.
TEST(Simulator, ASlowLinkIsTheBottleneck) {
  const int32_t m = 10;
  const Program program = Build(GPipeOrder(2, m), m);
  CostModel cost = UniformCost(
      program, {.forward_s = 1, .backward_s = 1, .message_bytes = 30});
  cost.default_link.bytes_per_s = 10;
  // First forward, m messages of 3 s, last forward; then the mirror image, in
  // which the last stage's first backward follows at once.
  EXPECT_DOUBLE_EQ(Simulated(program, cost).step_s, 2 * (1 + 3 * m + 1));
}

// Two replicas of two stages behind one network card each way: their messages
// leave one after the other, and the second replica is so much later.
TEST(Simulator, ReplicasQueueForTheChannelThatTheyShare) {
  const Program program = Build(GPipeOrder(2, 1), 1);
  CostModel cost = UniformCost(
      program, {.forward_s = 1, .backward_s = 2, .message_bytes = 10});
  cost.links.resize(4);
  // A message takes the link for half a second, its channel for a whole one.
  for (const int32_t down : {0, 1}) {
    LinkCost& link = cost.links[down == 0 ? 1 : 2];
    link.bytes_per_s = 20;
    link.channels[0] = {.number = down, .s_per_byte = 0.1};
  }
  const std::vector<CostModel> costs = {cost, cost};
  const auto results = SimulateReplicas(program, costs);
  ASSERT_TRUE(results.ok()) << results.status();
  // Forward 1, message 0.5, forward and backward 3, message 0.5, backward 2;
  // the other waits a second for its message up, and meets nobody on the way
  // down.
  EXPECT_DOUBLE_EQ((*results)[0].times[0].back().end_s, 8);
  EXPECT_DOUBLE_EQ((*results)[1].step_s, 8);
  double first_end = 0, second_end = 0;
  for (size_t i = 0; i < program.ranks[0].size(); ++i) {
    if (program.ranks[0][i].kind != InstructionKind::kBackward) continue;
    first_end = (*results)[0].times[0][i].end_s;
    second_end = (*results)[1].times[0][i].end_s;
  }
  EXPECT_DOUBLE_EQ(std::min(first_end, second_end), 7);
  EXPECT_DOUBLE_EQ(std::max(first_end, second_end), 8);
  // Alone, nothing is in the way.
  EXPECT_DOUBLE_EQ(Simulated(program, cost).step_s, 7);
}

// As many processors as ranks: nobody ever waits for one. A single one: the
// work of all, one after another.
TEST(Simulator, RanksThatShareProcessorsDoAllTheWorkOnThem) {
  for (const int32_t p : {1, 2, 4}) {
    const int32_t m = 6;
    for (const bool gpipe : {true, false}) {
      const Program program =
          Build(gpipe ? GPipeOrder(p, m) : OneFOneBOrder(p, m), m);
      CostModel cost = UniformCost(
          program, {.forward_s = 1, .backward_s = 2, .update_s = 0.5});
      cost.chunks[p - 1][0].forward_s = 1.5;
      const Simulation own = Simulated(program, cost);
      cost.processors = p;
      const Simulation enough = Simulated(program, cost);
      EXPECT_DOUBLE_EQ(enough.step_s, own.step_s);
      for (int32_t r = 0; r < p; ++r) {
        EXPECT_EQ(enough.ranks[r].processor_wait_s, 0);
        EXPECT_DOUBLE_EQ(enough.ranks[r].bubble_s, own.ranks[r].bubble_s);
      }
      double work = 0;
      for (const RankTime& rank : own.ranks) work += rank.compute_s;
      cost.processors = 1;
      const Simulation single = Simulated(program, cost);
      EXPECT_DOUBLE_EQ(single.step_s, work) << p << " " << gpipe;
      ExpectPartsSumToStep(single);
      cost.processors = 2;
      const Simulation two = Simulated(program, cost);
      EXPECT_GE(two.step_s, std::max(work / 2, own.step_s) - 1e-9);
      EXPECT_LE(two.step_s, work + 1e-9);
      ExpectPartsSumToStep(two);
    }
  }
}

// By hand: three stages, three microbatches, all forwards (0 to 2 on stages a,
// b, c), then all backwards, a second each, on two processors:
//   [0, 1] a0   [1, 2] a1 b0   [2, 3] two of a2 b1 c0, of which the third
//   [3, 4] comes next; whichever it is, [5, 6] ends with c2; and the backwards
//   take as long in the same way.
TEST(Simulator, ProcessorsAreTakenInTheOrderOfReadiness) {
  const Program program = Build(GPipeOrder(3, 3), 3);
  CostModel cost = UniformCost(program, {.forward_s = 1, .backward_s = 1});
  EXPECT_DOUBLE_EQ(Simulated(program, cost).step_s, 10);
  cost.processors = 2;
  EXPECT_DOUBLE_EQ(Simulated(program, cost).step_s, 12);
  cost.processors = 1;
  EXPECT_DOUBLE_EQ(Simulated(program, cost).step_s, 18);
  // Two independent replicas of one stage are not in each other's way.
  const Program alone = Build(OneFOneBOrder(1, 2), 2);
  CostModel own = UniformCost(alone, {.forward_s = 1, .backward_s = 2});
  own.processors = 1;
  const std::vector<CostModel> costs = {own, own};
  const auto results = SimulateReplicas(alone, costs);
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_DOUBLE_EQ((*results)[1].step_s, 6);
}

// Waiting for a processor is neither a bubble nor a message's fault.
TEST(Simulator, WaitingForAProcessorIsToldFromTheBubble) {
  const int32_t m = 4;
  const Program program = Build(GPipeOrder(2, m), m);
  CostModel cost = UniformCost(program, {.forward_s = 1, .backward_s = 1});
  cost.processors = 1;
  const Simulation result = Simulated(program, cost);
  EXPECT_DOUBLE_EQ(result.step_s, 2 * m * 2);
  for (const RankTime& rank : result.ranks) {
    EXPECT_DOUBLE_EQ(rank.compute_s, 2 * m);
    EXPECT_GT(rank.processor_wait_s, 0);
    EXPECT_EQ(rank.exposed_message_s, 0);
  }
}

TEST(Simulator, TheSlowestStageSetsThePace) {
  const int32_t m = 20;
  const Program program = Build(OneFOneBOrder(3, m), m);
  CostModel cost = UniformCost(program, {.forward_s = 1, .backward_s = 1});
  cost.chunks[1][0] = {.forward_s = 3, .backward_s = 3};
  // It never waits between the first stage's first forward and last backward.
  EXPECT_DOUBLE_EQ(Simulated(program, cost).step_s, 1 + m * 6 + 1);
}

// Buckets are reduced behind the last backward; only the rest is exposed.
TEST(Simulator, ReductionOverlapsTheLastBackward) {
  const Program program = Build(OneFOneBOrder(1, 2), 2, /*buckets=*/4);
  CostModel cost =
      UniformCost(program, {.forward_s = 4, .backward_s = 8, .reduce_s = 1});
  cost.clip_s = 0.25;
  const Simulation result = Simulated(program, cost);
  // A bucket is ready every 2 s; the last one at the end of the backward.
  EXPECT_DOUBLE_EQ(result.ranks[0].exposed_other_s, 1);
  EXPECT_DOUBLE_EQ(result.step_s, 2 * (4 + 8) + 1 + 0.25);
  ExpectPartsSumToStep(result);
  // Slower than the backward: they queue from the first one on.
  cost.chunks[0][0].reduce_s = 3;
  EXPECT_DOUBLE_EQ(Simulated(program, cost).step_s, 12 + 4 + 2 + 4 * 3 + 0.25);
}

TEST(Simulator, ClippingWaitsForTheSlowestRankAndUpdatesFollow) {
  const Program program = Build(OneFOneBOrder(2, 4), 4, /*buckets=*/2);
  CostModel cost =
      UniformCost(program, {.forward_s = 1, .backward_s = 2, .update_s = 0.5});
  cost.chunks[1][0].reduce_s = 10;
  const Simulation result = Simulated(program, cost);
  // Rank 1 ends its last backward at 13 and has its first bucket at 12.
  EXPECT_DOUBLE_EQ(result.step_s, 12 + 20 + 2 * 0.5);
  ExpectPartsSumToStep(result);
}

TEST(Simulator, PeakMemoryCountsActivationsAndMessagesInFlight) {
  const int32_t p = 4, m = 8;
  const Program program = Build(OneFOneBOrder(p, m), m);
  CostModel cost = UniformCost(
      program, {.forward_s = 1, .backward_s = 2, .message_bytes = 10});
  cost.default_link.bytes_per_s = 100;
  MemoryModel memory;
  for (int32_t r = 0; r < p; ++r) {
    memory.ranks.push_back(
        {.always = {.parameters = 500, .optimizer = 1000},
         .chunks = {{.activation_bytes = 100,
                     .activation_message_bytes = r > 0 ? 10 : 0,
                     .gradient_message_bytes = r + 1 < p ? 10 : 0}},
         .limit_bytes = 0});
  }
  const Simulation result = Simulated(program, cost, &memory);
  ASSERT_EQ(result.peak_memory.size(), 4u);
  for (int32_t r = 0; r < p; ++r) {
    const MemoryBytes& peak = result.peak_memory[r];
    EXPECT_EQ(peak.parameters, 500);
    EXPECT_EQ(peak.optimizer, 1000);
    EXPECT_EQ(peak.activations, 100 * (p - r));
    // Received: read and posted next; sent: at most one each way here.
    EXPECT_GE(peak.communication, 10);
    EXPECT_LE(peak.communication, 40);
    EXPECT_GE(peak.total(),
              PeakInListOrder(program, r, memory.ranks[r]).at_peak.total());
  }
}

// The order in time that the instructions of a rank depend on holds on every
// rank of a deep pipeline with uneven costs.
TEST(Simulator, DependenciesHoldInADeepUnevenPipeline) {
  const int32_t p = 48, m = 96;
  const Program program = Build(OneFOneBOrder(p, m), m, 3);
  ASSERT_TRUE(ValidateProgram(program).ok());
  CostModel cost = UniformCost(program, {.message_bytes = 1000});
  for (int32_t r = 0; r < p; ++r) {
    cost.chunks[r][0].forward_s = 1 + 0.1 * (r * 7 % 5);
    cost.chunks[r][0].backward_s = 2 + 0.2 * (r * 3 % 7);
    cost.chunks[r][0].reduce_s = 0.1 * (r % 4);
    cost.chunks[r][0].update_s = 0.01;
  }
  cost.default_link = {.latency_s = 0.01, .bytes_per_s = 5000};
  const Simulation result = Simulated(program, cost);
  ExpectPartsSumToStep(result);
  for (int32_t r = 0; r < p; ++r) {
    double compute_end = 0;
    for (size_t i = 0; i < program.ranks[r].size(); ++i) {
      const Instruction& instruction = program.ranks[r][i];
      const Interval& interval = result.times[r][i];
      EXPECT_LE(interval.end_s, result.step_s);
      if (instruction.kind != InstructionKind::kReduceGradients) {
        for (const int32_t dependency : instruction.depends_on) {
          EXPECT_GE(interval.start_s, result.times[r][dependency].end_s);
        }
      }
      if (instruction.resource == Resource::kCompute) {
        EXPECT_GE(interval.start_s, compute_end);
        compute_end = interval.end_s;
      }
    }
  }
}

TEST(Simulator, ProgramsThatBlockAndModelsThatDoNotFitAreErrors) {
  Program program = Build(OneFOneBOrder(2, 1), 1);
  const CostModel cost = UniformCost(program, {.forward_s = 1});
  // Rank 0 waits for the gradient before the forward it comes from.
  ASSERT_EQ(program.ranks[0][0].kind, InstructionKind::kRecv);
  ASSERT_EQ(program.ranks[0][1].kind, InstructionKind::kForward);
  program.ranks[0][1].depends_on.push_back(0);
  EXPECT_FALSE(Simulate(program, cost).ok());

  const Program good = Build(OneFOneBOrder(2, 1), 1);
  EXPECT_FALSE(Simulate(good, CostModel()).ok());
  EXPECT_FALSE(Simulate(good, UniformCost(good, {.forward_s = -1})).ok());
  EXPECT_FALSE(
      Simulate(good, UniformCost(good, {.forward_s = std::nan("")})).ok());
  CostModel dead_link = cost;
  dead_link.default_link.bytes_per_s = 0;
  EXPECT_FALSE(Simulate(good, dead_link).ok());
  CostModel less_than_none = cost;
  less_than_none.processors = -1;
  EXPECT_FALSE(Simulate(good, less_than_none).ok());
  const MemoryModel empty;
  EXPECT_FALSE(Simulate(good, cost, &empty).ok());
}

// A message that is sent twice would have two times.
TEST(Simulator, AMessageIsSentOnce) {
  Program program = Build(GPipeOrder(2, 2), 2);
  const CostModel cost = UniformCost(program, {.forward_s = 1});
  for (std::vector<Instruction>& list : program.ranks) {
    for (Instruction& instruction : list) {
      const bool message = instruction.kind == InstructionKind::kSend ||
                           instruction.kind == InstructionKind::kRecv;
      if (message && instruction.microbatch == 1) instruction.microbatch = 0;
    }
  }
  ASSERT_TRUE(ValidateLists(program).ok());
  const absl::Status status = Simulate(program, cost).status();
  EXPECT_NE(status.message().find("each message once"), std::string::npos)
      << status;
}

// Links that the model does not list one by one share channels as well.
TEST(Simulator, TheDefaultLinkMayHaveAChannel) {
  const Program program = Build(GPipeOrder(3, 1), 1);
  CostModel cost = UniformCost(program, {.message_bytes = 10});
  cost.default_link.channels[0] = {.number = 5, .s_per_byte = 0.1};
  // Nothing takes time but the channel, which the four messages pass one after
  // another; what follows the last one does not wait for it.
  EXPECT_DOUBLE_EQ(Simulated(program, cost).step_s, 3);
}

TEST(Simulator, TheTraceHasEveryTimedInstructionOnItsTrack) {
  const Program program = Build(OneFOneBOrder(2, 2), 2);
  CostModel cost = UniformCost(
      program, {.forward_s = 1, .backward_s = 2, .message_bytes = 1});
  cost.default_link.bytes_per_s = 10;
  const std::vector<TraceEvent> events =
      SimulationTrace(program, Simulated(program, cost));
  // 2 ranks: 2 forwards, 2 backwards and 2 messages each.
  EXPECT_EQ(events.size(), 12u);
  const auto message =
      std::find_if(events.begin(), events.end(), [](const TraceEvent& event) {
        return event.name == "Send activation mb=0 hop=0 to=1 chunk=0";
      });
  ASSERT_NE(message, events.end());
  EXPECT_EQ(message->track, "to 1");
  EXPECT_EQ(message->category, "communication");
  EXPECT_EQ(message->start_ns, 1000000000);
  EXPECT_EQ(message->duration_ns, 100000000);
}

}  // namespace
}  // namespace trireme
