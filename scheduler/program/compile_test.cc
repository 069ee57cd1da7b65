#include "scheduler/program/compile.h"

#include <string>

#include "gtest/gtest.h"
#include "scheduler/plan/plan.h"

namespace trireme {
namespace {

Plan PlanOf(uint32_t pp, uint32_t microbatches, Plan::Schedule schedule) {
  Plan plan;
  plan.mutable_grid()->set_pp(pp);
  plan.set_microbatches(microbatches);
  plan.set_schedule(schedule);
  const absl::StatusOr<Plan> resolved =
      ResolvePlan(plan, {.world_size = pp,
                         .global_batch = microbatches,
                         .num_blocks = pp,
                         .heads = 0});
  EXPECT_TRUE(resolved.ok()) << resolved.status();
  return *resolved;
}

// People read this form in --dry_run; a change of schedule shows here.
TEST(Compile, GoldenOneFOneB) {
  const absl::StatusOr<Program> program = CompilePlan(
      PlanOf(2, 3, Plan::ONE_F_ONE_B), {.buckets_per_stage = {2, 1}});
  ASSERT_TRUE(program.ok()) << program.status();
  EXPECT_EQ(ToText(*program), R"(program ranks=2 stages=2 microbatches=3
stage 0: rank=0 chunk=0 buckets=2
stage 1: rank=1 chunk=0 buckets=1
rank 0
    0  compute        Forward mb=0 chunk=0
    1  communication  Send activation mb=0 hop=0 to=1 chunk=0  after 0
    2  communication  Recv gradient mb=0 hop=0 from=1 chunk=0
    3  compute        Forward mb=1 chunk=0
    4  communication  Send activation mb=1 hop=0 to=1 chunk=0  after 3
    5  compute        Backward mb=0 chunk=0  after 0,2
    6  communication  Recv gradient mb=1 hop=0 from=1 chunk=0
    7  compute        Forward mb=2 chunk=0
    8  communication  Send activation mb=2 hop=0 to=1 chunk=0  after 7
    9  communication  Recv gradient mb=2 hop=0 from=1 chunk=0
   10  compute        Backward mb=1 chunk=0  after 3,6
   11  compute        Backward mb=2 chunk=0  after 7,9
   12  communication  ReduceGradients chunk=0 bucket=0  after 11
   13  communication  ReduceGradients chunk=0 bucket=1  after 11
   14  compute        ClipGradients  after 12,13
   15  compute        Update chunk=0 bucket=1  after 14
   16  compute        Update chunk=0 bucket=0  after 14
rank 1
    0  communication  Recv activation mb=0 hop=0 from=0 chunk=0
    1  compute        Forward mb=0 chunk=0  after 0
    2  communication  Recv activation mb=1 hop=0 from=0 chunk=0
    3  compute        Backward mb=0 chunk=0  after 1
    4  communication  Send gradient mb=0 hop=0 to=0 chunk=0  after 3
    5  compute        Forward mb=1 chunk=0  after 2
    6  communication  Recv activation mb=2 hop=0 from=0 chunk=0
    7  compute        Backward mb=1 chunk=0  after 5
    8  communication  Send gradient mb=1 hop=0 to=0 chunk=0  after 7
    9  compute        Forward mb=2 chunk=0  after 6
   10  compute        Backward mb=2 chunk=0  after 9
   11  communication  Send gradient mb=2 hop=0 to=0 chunk=0  after 10
   12  communication  ReduceGradients chunk=0 bucket=0  after 10
   13  compute        ClipGradients  after 12
   14  compute        Update chunk=0 bucket=0  after 13
)");
}

TEST(Compile, GoldenGPipe) {
  const absl::StatusOr<Program> program =
      CompilePlan(PlanOf(2, 2, Plan::GPIPE));
  ASSERT_TRUE(program.ok()) << program.status();
  EXPECT_EQ(ToText(*program), R"(program ranks=2 stages=2 microbatches=2
stage 0: rank=0 chunk=0 buckets=1
stage 1: rank=1 chunk=0 buckets=1
rank 0
    0  compute        Forward mb=0 chunk=0
    1  communication  Send activation mb=0 hop=0 to=1 chunk=0  after 0
    2  communication  Recv gradient mb=0 hop=0 from=1 chunk=0
    3  compute        Forward mb=1 chunk=0
    4  communication  Send activation mb=1 hop=0 to=1 chunk=0  after 3
    5  communication  Recv gradient mb=1 hop=0 from=1 chunk=0
    6  compute        Backward mb=0 chunk=0  after 0,2
    7  compute        Backward mb=1 chunk=0  after 3,5
    8  communication  ReduceGradients chunk=0 bucket=0  after 7
    9  compute        ClipGradients  after 8
   10  compute        Update chunk=0 bucket=0  after 9
rank 1
    0  communication  Recv activation mb=0 hop=0 from=0 chunk=0
    1  communication  Recv activation mb=1 hop=0 from=0 chunk=0
    2  compute        Forward mb=0 chunk=0  after 0
    3  compute        Forward mb=1 chunk=0  after 1
    4  compute        Backward mb=0 chunk=0  after 2
    5  communication  Send gradient mb=0 hop=0 to=0 chunk=0  after 4
    6  compute        Backward mb=1 chunk=0  after 3
    7  communication  Send gradient mb=1 hop=0 to=0 chunk=0  after 6
    8  communication  ReduceGradients chunk=0 bucket=0  after 6
    9  compute        ClipGradients  after 8
   10  compute        Update chunk=0 bucket=0  after 9
)");
}

TEST(Compile, OneRankNeedsNoMessages) {
  const absl::StatusOr<Program> program =
      CompilePlan(PlanOf(1, 2, Plan::ONE_F_ONE_B));
  ASSERT_TRUE(program.ok()) << program.status();
  for (const Instruction& instruction : program->ranks[0]) {
    EXPECT_NE(instruction.kind, InstructionKind::kSend);
    EXPECT_NE(instruction.kind, InstructionKind::kRecv);
  }
}

// CompilePlan validates: every depth and count must pass the proof of no
// deadlock with blocking sends.
TEST(Compile, EveryDepthAndMicrobatchCountIsProvedFreeOfDeadlock) {
  for (const Plan::Schedule schedule : {Plan::GPIPE, Plan::ONE_F_ONE_B}) {
    for (uint32_t pp = 1; pp <= 9; ++pp) {
      for (const uint32_t microbatches : {1, 2, 3, 4, 7, 8, 9, 16, 31}) {
        const absl::StatusOr<Program> program =
            CompilePlan(PlanOf(pp, microbatches, schedule));
        EXPECT_TRUE(program.ok())
            << pp << " " << microbatches << " " << program.status();
      }
    }
  }
}

TEST(Compile, RefusesWhatDoesNotFit) {
  EXPECT_FALSE(CompilePlan(Plan()).ok());
  const Plan plan = PlanOf(2, 2, Plan::GPIPE);
  EXPECT_FALSE(CompilePlan(plan, {.buckets_per_stage = {1}}).ok());
  EXPECT_FALSE(CompilePlan(plan, {.buckets_per_stage = {1, -1}}).ok());
  Plan huge = plan;
  huge.set_microbatches(4294967295u);
  EXPECT_FALSE(CompilePlan(huge).ok());
  // Two stages: one more than messages can be numbered for.
  huge.set_microbatches((1u << 26) + 1);
  const absl::Status status = CompilePlan(huge).status();
  EXPECT_EQ(status.message(),
            "plan.microbatches: found 67108865, expected at most 67108864 with "
            "2 stages");
}

// The next forward needs the first layers first, and these are in the buckets
// that backward fills last.
TEST(Compile, ParametersAreUpdatedAndGatheredInTheOrderOfTheNextForward) {
  Plan plan;
  plan.mutable_grid()->set_dp(2);
  plan.mutable_grid()->set_pp(2);
  plan.set_microbatches(2);
  plan.set_schedule(Plan::INTERLEAVED);
  plan.set_sharding(Plan::OPTIMIZER);
  const auto resolved = ResolvePlan(
      plan, {.world_size = 4, .global_batch = 4, .num_blocks = 4, .heads = 0});
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  const auto program =
      CompilePlan(*resolved, {.buckets_per_stage = {2, 1, 3, 1}});
  ASSERT_TRUE(program.ok()) << program.status();
  std::string order;
  for (const Instruction& instruction : program->ranks[0]) {
    const std::string text = ToText(instruction);
    if (instruction.bucket >= 0) order += text + "\n";
  }
  EXPECT_EQ(order, R"(ReduceGradients chunk=1 bucket=0
ReduceGradients chunk=1 bucket=1
ReduceGradients chunk=1 bucket=2
ReduceGradients chunk=0 bucket=0
ReduceGradients chunk=0 bucket=1
Update chunk=0 bucket=1
GatherParameters chunk=0 bucket=1
Update chunk=0 bucket=0
GatherParameters chunk=0 bucket=0
Update chunk=1 bucket=2
GatherParameters chunk=1 bucket=2
Update chunk=1 bucket=1
GatherParameters chunk=1 bucket=1
Update chunk=1 bucket=0
GatherParameters chunk=1 bucket=0
)");
}

}  // namespace
}  // namespace trireme
