// Collectives and messages that pass the same network cards, by hand.

#include <algorithm>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "scheduler/schedules/orders.h"
#include "scheduler/simulator/simulator.h"

namespace trireme {
namespace {

Program Build(const ComputeOrder& order, int32_t microbatches,
              int32_t buckets) {
  const auto ranks = static_cast<int32_t>(order.size());
  return BuildProgram(order, OneStagePerRank(ranks), microbatches,
                      std::vector<int32_t>(ranks, buckets),
                      /*gather_parameters=*/true);
}

// One microbatch on two stages: forwards [0, 1] and [1, 2], backwards [2, 4] on
// rank 1 and [4, 6] on rank 0.
struct TwoStages {
  explicit TwoStages(int32_t buckets)
      : program(Build(GPipeOrder(2, 1), 1, buckets)),
        cost(UniformCost(program, {.forward_s = 1, .backward_s = 2})) {}

  Program program;
  CostModel cost;
};

Simulation Simulated(const Program& program, const CostModel& cost) {
  const absl::StatusOr<Simulation> result = Simulate(program, cost);
  EXPECT_TRUE(result.ok()) << result.status();
  if (!result.ok()) return Simulation();
  for (const RankTime& rank : result->ranks) {
    EXPECT_NEAR(rank.compute_s + rank.bubble_s + rank.exposed_message_s +
                    rank.exposed_other_s + rank.processor_wait_s,
                result->step_s, 1e-9);
  }
  return *result;
}

// When the rank's instructions of one kind run, in the order of its list.
std::vector<Interval> TimesOf(const Program& program, const Simulation& result,
                              int32_t rank, InstructionKind kind) {
  std::vector<Interval> times;
  for (size_t i = 0; i < program.ranks[rank].size(); ++i) {
    if (program.ranks[rank][i].kind == kind) {
      times.push_back(result.times[rank][i]);
    }
  }
  return times;
}

void ExpectTimes(const std::vector<Interval>& found,
                 const std::vector<Interval>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_DOUBLE_EQ(found[i].start_s, expected[i].start_s) << i;
    EXPECT_DOUBLE_EQ(found[i].end_s, expected[i].end_s) << i;
  }
}

constexpr InstructionKind kReduce = InstructionKind::kReduceGradients;

// The rings of two stages on one node: the second waits for the card.
TEST(SimulatorChannels, TwoRingsThroughOneCardRunOneAfterTheOther) {
  TwoStages two(1);
  for (const int32_t rank : {0, 1}) {
    two.cost.chunks[rank][0].reduce_s = 3;
    two.cost.chunks[rank][0].reduce_channels = {{.number = 0, .busy_s = 3}};
  }
  const Simulation result = Simulated(two.program, two.cost);
  ExpectTimes(TimesOf(two.program, result, 1, kReduce), {{4, 7}});
  ExpectTimes(TimesOf(two.program, result, 0, kReduce), {{7, 10}});
  EXPECT_DOUBLE_EQ(result.step_s, 10);
  // From its last backward to the end of its ring, the queue included.
  EXPECT_DOUBLE_EQ(result.ranks[0].exposed_other_s, 4);
  EXPECT_DOUBLE_EQ(result.ranks[1].exposed_other_s, 3);
}

// A ring may need a card for less time than it takes: another node's is slower.
TEST(SimulatorChannels, ARingHoldsEachCardOnlyForItsOwnBytes) {
  TwoStages two(1);
  two.cost.chunks[1][0].reduce_s = 4;
  two.cost.chunks[1][0].reduce_channels = {{.number = 0, .busy_s = 2.5},
                                           {.number = 1, .busy_s = 4}};
  two.cost.chunks[0][0].reduce_s = 3;
  two.cost.chunks[0][0].reduce_channels = {{.number = 0, .busy_s = 3}};
  const Simulation result = Simulated(two.program, two.cost);
  ExpectTimes(TimesOf(two.program, result, 1, kReduce), {{4, 8}});
  ExpectTimes(TimesOf(two.program, result, 0, kReduce), {{6.5, 9.5}});
}

// The first bucket is on its way when the backward ends that the other stage
// waits for; the second comes after the message, which was ready first.
TEST(SimulatorChannels, AMessageWaitsBehindARing) {
  TwoStages two(2);
  two.cost.chunks[0][0].message_bytes = 10;
  two.cost.links.resize(4);
  two.cost.links[2].bytes_per_s = 10;  // down: 1 s
  two.cost.links[2].channels[1] = {.number = 0, .s_per_byte = 0.1};
  two.cost.chunks[1][0].reduce_s = 5;
  two.cost.chunks[1][0].reduce_channels = {{.number = 0, .busy_s = 5}};
  const Simulation result = Simulated(two.program, two.cost);
  ExpectTimes(TimesOf(two.program, result, 1, kReduce), {{3, 8}, {9, 14}});
  ExpectTimes(TimesOf(two.program, result, 1, InstructionKind::kSend),
              {{8, 9}});
  ExpectTimes(TimesOf(two.program, result, 0, InstructionKind::kBackward),
              {{9, 11}});
  EXPECT_DOUBLE_EQ(result.step_s, 14);
  // On the way from 4, when it was sent.
  EXPECT_DOUBLE_EQ(result.ranks[0].exposed_message_s, 5);
}

TEST(SimulatorChannels, ARingWaitsBehindAMessage) {
  TwoStages two(1);
  two.cost.chunks[0][0].message_bytes = 10;
  two.cost.links.resize(4);
  two.cost.links[2].bytes_per_s = 10;
  two.cost.links[2].channels[1] = {.number = 0, .s_per_byte = 0.1};
  two.cost.chunks[1][0].reduce_s = 5;
  two.cost.chunks[1][0].reduce_channels = {{.number = 0, .busy_s = 5}};
  const Simulation result = Simulated(two.program, two.cost);
  ExpectTimes(TimesOf(two.program, result, 1, kReduce), {{5, 10}});
}

// Gathers of one stage's parameters and another's queue as reductions do, and
// those of a rank follow one another.
TEST(SimulatorChannels, GathersQueueForTheCardToo) {
  TwoStages two(2);
  for (const int32_t rank : {0, 1}) {
    two.cost.chunks[rank][0].gather_s = 1;
    two.cost.chunks[rank][0].gather_channels = {{.number = 0, .busy_s = 1}};
  }
  const Simulation result = Simulated(two.program, two.cost);
  double end = 6;
  for (const int32_t rank : {0, 1}) {
    const std::vector<Interval> times =
        TimesOf(two.program, result, rank, InstructionKind::kGatherParameters);
    ASSERT_EQ(times.size(), 2u);
    EXPECT_GE(times[1].start_s, times[0].end_s);
    end = std::max(end, times[1].end_s);
  }
  EXPECT_DOUBLE_EQ(end, 10);
  // A rank needs the parameters of its chunk's second bucket when its forward
  // is half over, 1/2 and 3/2 into the step.
  double needed = 6;
  for (const int32_t rank : {0, 1}) {
    const std::vector<Interval> times =
        TimesOf(two.program, result, rank, InstructionKind::kGatherParameters);
    needed = std::max(
        {needed, times[0].end_s - rank, times[1].end_s - (rank + 0.5)});
  }
  EXPECT_DOUBLE_EQ(result.step_s, needed);
}

// As the executor does: a gather is waited for where its parameters are used.
TEST(SimulatorChannels, AGatherHidesBehindTheNextForward) {
  const auto simulated = [](int32_t ranks, double gather_s) {
    const Program program = Build(OneFOneBOrder(ranks, 2), 2, 1);
    return Simulated(program, UniformCost(program, {.forward_s = 4,
                                                    .backward_s = 8,
                                                    .gather_s = gather_s,
                                                    .update_s = 1}));
  };
  // Of one bucket the first use is at once: two microbatches, the update, the
  // gather.
  EXPECT_DOUBLE_EQ(simulated(1, 2).step_s, 27);
  // The second stage's first forward is 4 s later.
  EXPECT_DOUBLE_EQ(simulated(2, 0).step_s, 37);
  EXPECT_DOUBLE_EQ(simulated(2, 2).step_s, 39);
  EXPECT_DOUBLE_EQ(simulated(2, 2).ranks[0].exposed_other_s, 2);
  EXPECT_DOUBLE_EQ(simulated(2, 2).ranks[1].exposed_other_s, 0);

  // Of eight buckets all but the first are used later.
  const Program program = Build(OneFOneBOrder(1, 2), 2, 8);
  EXPECT_DOUBLE_EQ(Simulated(program, UniformCost(program, {.forward_s = 4,
                                                            .backward_s = 8,
                                                            .gather_s = 0.25,
                                                            .update_s = 0.125}))
                       .step_s,
                   25);
}

// Channels that nobody else passes change nothing, on any rank.
TEST(SimulatorChannels, WithoutASharedChannelEverythingIsAsWithoutChannels) {
  constexpr int32_t kRanks = 4, kMicrobatches = 6, kBuckets = 3;
  const Program program =
      Build(OneFOneBOrder(kRanks, kMicrobatches), kMicrobatches, kBuckets);
  CostModel cost = UniformCost(program, {.message_bytes = 7});
  for (int32_t rank = 0; rank < kRanks; ++rank) {
    ChunkCost& chunk = cost.chunks[rank][0];
    chunk.forward_s = 1 + 0.1 * rank;
    chunk.backward_s = 2 - 0.2 * rank;
    chunk.reduce_s = 0.5 + 0.3 * rank;
    chunk.update_s = 0.1;
    chunk.gather_s = 0.7 - 0.1 * rank;
  }
  cost.default_link = {.latency_s = 0.01, .bytes_per_s = 70};
  const Simulation without = Simulated(program, cost);
  for (int32_t rank = 0; rank < kRanks; ++rank) {
    ChunkCost& chunk = cost.chunks[rank][0];
    chunk.reduce_channels = {{.number = 2 * rank, .busy_s = chunk.reduce_s},
                             {.number = 2 * rank + 1, .busy_s = 0.1}};
    chunk.gather_channels = {{.number = 2 * rank, .busy_s = chunk.gather_s}};
  }
  const Simulation with = Simulated(program, cost);
  EXPECT_EQ(with.step_s, without.step_s);
  for (int32_t rank = 0; rank < kRanks; ++rank) {
    EXPECT_EQ(with.ranks[rank].exposed_other_s,
              without.ranks[rank].exposed_other_s);
    EXPECT_EQ(with.ranks[rank].bubble_s, without.ranks[rank].bubble_s);
    for (size_t i = 0; i < program.ranks[rank].size(); ++i) {
      EXPECT_EQ(with.times[rank][i].start_s, without.times[rank][i].start_s);
      EXPECT_EQ(with.times[rank][i].end_s, without.times[rank][i].end_s);
    }
  }
}

// A collective is one of all replicas: it waits for the slowest of them, and
// passes the card once.
TEST(SimulatorChannels, ReplicasMeetInTheirCollective) {
  TwoStages two(1);
  two.cost.chunks[1][0].reduce_s = 3;
  two.cost.chunks[1][0].reduce_channels = {{.number = 0, .busy_s = 3}};
  std::vector<CostModel> costs(3, two.cost);
  costs[1].chunks[1][0].backward_s = 4;  // [2, 6]
  const auto results = SimulateReplicas(two.program, costs);
  ASSERT_TRUE(results.ok()) << results.status();
  for (const Simulation& result : *results) {
    ExpectTimes(TimesOf(two.program, result, 1, kReduce), {{6, 9}});
    EXPECT_DOUBLE_EQ(result.step_s, 9);
  }
}

TEST(SimulatorChannels, ChannelsThatMakeNoSenseAreErrors) {
  TwoStages two(1);
  CostModel negative = two.cost;
  negative.chunks[0][0].reduce_channels = {{.number = -1, .busy_s = 1}};
  EXPECT_FALSE(Simulate(two.program, negative).ok());
  negative.chunks[0][0].reduce_channels = {{.number = 0, .busy_s = -1}};
  EXPECT_FALSE(Simulate(two.program, negative).ok());
  std::vector<CostModel> costs(2, two.cost);
  costs[1].chunks[1][0].gather_channels = {{.number = 0, .busy_s = 1}};
  const absl::Status status = SimulateReplicas(two.program, costs).status();
  EXPECT_NE(status.message().find("rank 1 chunk 0"), std::string::npos)
      << status;
}

}  // namespace
}  // namespace trireme
