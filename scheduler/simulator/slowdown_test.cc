#include "scheduler/simulator/slowdown.h"

#include "gtest/gtest.h"
#include "scheduler/schedules/orders.h"
#include "scheduler/simulator/simulator.h"

namespace trireme {
namespace {

Instruction On(Resource resource, InstructionKind kind) {
  Instruction instruction;
  instruction.kind = kind;
  instruction.resource = resource;
  return instruction;
}

// Ten seconds of compute; two reductions that overlap one another, two seconds
// of which pass when it is over; a message, which is not the device's work.
TEST(Slowdown, OnlyWhatRunsAtOnceTakesLonger) {
  const std::vector<Instruction> list = {
      On(Resource::kCompute, InstructionKind::kBackward),
      On(Resource::kCommunication, InstructionKind::kReduceGradients),
      On(Resource::kCommunication, InstructionKind::kReduceGradients),
      On(Resource::kCommunication, InstructionKind::kSend),
      On(Resource::kCopyIn, InstructionKind::kFetch)};
  const std::vector<Interval> times = {
      {0, 10}, {4, 7}, {6, 12}, {0, 10}, {9, 11}};
  CostModel cost;
  EXPECT_EQ(SlowedSeconds(list, times, cost), 0);
  cost.compute_beside_communication = 1.5;
  EXPECT_DOUBLE_EQ(SlowedSeconds(list, times, cost), 0.5 * 6);
  cost.compute_beside_copies = 1.1;
  EXPECT_DOUBLE_EQ(SlowedSeconds(list, times, cost), 0.5 * 6 + 0.1 * 1);
}

// A step whose reductions hide behind its backward is not free of them.
TEST(Slowdown, TheStepOfARankIsStillTheSumOfItsParts) {
  const Program program =
      BuildProgram(OneFOneBOrder(2, 4), OneStagePerRank(2), 4, {4, 4});
  CostModel cost =
      UniformCost(program, {.forward_s = 4, .backward_s = 8, .reduce_s = 1});
  const absl::StatusOr<Simulation> alone = Simulate(program, cost);
  cost.compute_beside_communication = 2;
  const absl::StatusOr<Simulation> slowed = Simulate(program, cost);
  ASSERT_TRUE(alone.ok() && slowed.ok()) << slowed.status();
  EXPECT_GT(slowed->step_s, alone->step_s);
  for (const RankTime& rank : slowed->ranks) {
    EXPECT_DOUBLE_EQ(rank.compute_s + rank.exposed_message_s +
                         rank.exposed_other_s + rank.exposed_copy_s +
                         rank.exposed_host_s + rank.processor_wait_s +
                         rank.bubble_s,
                     slowed->step_s);
  }
  cost.compute_beside_communication = 0.5;
  EXPECT_FALSE(Simulate(program, cost).ok());
}

}  // namespace
}  // namespace trireme
