#include "scheduler/program/validator.h"

#include <algorithm>
#include <functional>

#include "gtest/gtest.h"
#include "runtime/core/status.h"
#include "scheduler/schedules/orders.h"

namespace trireme {
namespace {

Program OneFOneB(int32_t ranks, int32_t microbatches) {
  return BuildProgram(OneFOneBOrder(ranks, microbatches),
                      OneStagePerRank(ranks), microbatches,
                      std::vector<int32_t>(ranks, 1));
}

// The index of the instruction with this text.
int32_t Find(const Program& program, int32_t rank, const std::string& text) {
  const std::vector<Instruction>& list = program.ranks[rank];
  for (size_t i = 0; i < list.size(); ++i) {
    if (ToText(list[i]) == text) return static_cast<int32_t>(i);
  }
  ADD_FAILURE() << "rank " << rank << " has no " << text;
  return 0;
}

// Takes an instruction out; dependencies on it go, those behind it move up.
void Erase(Program& program, int32_t rank, int32_t index) {
  std::vector<Instruction>& list = program.ranks[rank];
  list.erase(list.begin() + index);
  for (Instruction& instruction : list) {
    auto& depends_on = instruction.depends_on;
    depends_on.erase(std::remove(depends_on.begin(), depends_on.end(), index),
                     depends_on.end());
    for (int32_t& dependency : depends_on) dependency -= dependency > index;
  }
}

// Exchanges two instructions and every reference to them.
void Swap(Program& program, int32_t rank, int32_t a, int32_t b) {
  std::vector<Instruction>& list = program.ranks[rank];
  std::swap(list[a], list[b]);
  for (Instruction& instruction : list) {
    for (int32_t& dependency : instruction.depends_on) {
      if (dependency == a) {
        dependency = b;
      } else if (dependency == b) {
        dependency = a;
      }
    }
  }
}

void ExpectError(const Program& program, const std::string& part) {
  const absl::Status status = ValidateProgram(program);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(MessageOf(status).find(part), std::string::npos)
      << MessageOf(status) << "\nlacks: " << part;
}

// Messages are numbered in int32: more would be taken for one another.
TEST(Validator, MoreMicrobatchesThanCanBeNumberedAreRefused) {
  Program program = OneFOneB(2, 3);
  program.microbatches = (1 << 26) + 1;
  ExpectError(program, "a product of at most 134217728");
}

TEST(Validator, AMissingReceiveIsFound) {
  Program program = OneFOneB(2, 3);
  Erase(program, 0,
        Find(program, 0, "Recv gradient mb=2 hop=0 from=1 chunk=0"));
  ExpectError(program,
              "Send gradient mb=2 hop=0 to=0 chunk=0': found 3 sends "
              "but 2 receives on rank 0");
}

TEST(Validator, AMissingSendIsFound) {
  Program program = OneFOneB(2, 3);
  Erase(program, 0,
        Find(program, 0, "Send activation mb=2 hop=0 to=1 chunk=0"));
  ExpectError(program, "3 receives but 2 sends on rank 0");
}

TEST(Validator, ReceivesInAnotherOrderThanSendsAreFound) {
  Program program = OneFOneB(2, 3);
  program
      .ranks[1][Find(program, 1, "Recv activation mb=0 hop=0 from=0 chunk=0")]
      .microbatch = 1;
  program
      .ranks[1]
            [Find(program, 1, "Recv activation mb=1 hop=0 from=0 chunk=0") + 3]
      .microbatch = 0;
  ExpectError(program,
              "found mb=1 hop=0 as message 0 of the channel, expected "
              "mb=0 hop=0, as rank 0 instruction 1");
}

TEST(Validator, ADependencyThatPointsForwardsIsACycle) {
  Program program = OneFOneB(2, 2);
  program.ranks[0][0].depends_on.push_back(3);
  ExpectError(program,
              "rank 0 instruction 0 'Forward mb=0 chunk=0': found a "
              "dependency on instruction 3");
}

// Both ranks send before they post what the other sends: works only where the
// transport buffers.
TEST(Validator, CrossingSendsAreADeadlock) {
  Program program = OneFOneB(2, 2);
  // Rank 0 posts the receive of gradient 0 after its send of activation 1.
  const int32_t recv =
      Find(program, 0, "Recv gradient mb=0 hop=0 from=1 chunk=0");
  const int32_t send =
      Find(program, 0, "Send activation mb=1 hop=0 to=1 chunk=0");
  ASSERT_LT(recv, send);
  for (int32_t i = recv; i < send; ++i) Swap(program, 0, i, i + 1);
  // Rank 1 posts the receive of activation 1 after its send of gradient 0.
  const int32_t recv1 =
      Find(program, 1, "Recv activation mb=1 hop=0 from=0 chunk=0");
  const int32_t send1 =
      Find(program, 1, "Send gradient mb=0 hop=0 to=0 chunk=0");
  ASSERT_LT(recv1, send1);
  for (int32_t i = recv1; i < send1; ++i) Swap(program, 1, i, i + 1);
  ExpectError(program,
              "deadlock with blocking sends: found rank 0 instruction 3 'Send "
              "activation mb=1 hop=0 to=1 chunk=0' waits for rank 1; rank 1 "
              "instruction 3 'Send gradient mb=0 hop=0 to=0 chunk=0' waits for "
              "rank 0");
}

// Rank 0 wants gradient 0 before it computes what rank 1 needs for it.
TEST(Validator, ACycleThroughTwoRanksIsADeadlock) {
  Program program = OneFOneB(2, 1);
  ASSERT_EQ(program.ranks[0][0].kind, InstructionKind::kRecv);
  ASSERT_EQ(program.ranks[0][1].kind, InstructionKind::kForward);
  program.ranks[0][1].depends_on.push_back(0);
  ExpectError(program,
              "found rank 0 instruction 1 'Forward mb=0 chunk=0' waits for "
              "rank 1; rank 1 instruction 1 'Forward mb=0 chunk=0' waits for "
              "rank 0");
}

TEST(Validator, AMicrobatchMustGoForwardAndBackwardOnce) {
  Program twice = OneFOneB(1, 2);
  twice.ranks[0][Find(twice, 0, "Backward mb=1 chunk=0")].microbatch = 0;
  ExpectError(twice, "found a second backward (the first is instruction 1)");

  Program none = OneFOneB(1, 2);
  Erase(none, 0, Find(none, 0, "Backward mb=1 chunk=0"));
  // What is left reduces after the first backward.
  none.ranks[0][3].depends_on = {1};
  ExpectError(none, "rank 0 chunk 0 mb=1: found no backward");

  Program early = OneFOneB(1, 1);
  Swap(early, 0, 0, 1);
  early.ranks[0][0].depends_on.clear();
  ExpectError(early, "'Backward mb=0 chunk=0': found no forward before it");
}

TEST(Validator, AForwardMustReadItsOwnMessage) {
  Program program = OneFOneB(2, 2);
  program.ranks[1][Find(program, 1, "Forward mb=1 chunk=0")].depends_on.clear();
  ExpectError(program, "expected one on 'Recv activation mb=1 hop=0 from=0'");
}

TEST(Validator, ASendMustDependOnWhatItSends) {
  Program program = OneFOneB(2, 2);
  program.ranks[0][Find(program, 0, "Send activation mb=1 hop=0 to=1 chunk=0")]
      .depends_on.clear();
  ExpectError(program, "found no dependency on what it sends");
}

TEST(Validator, NothingComesAfterAnUpdate) {
  Program program = OneFOneB(1, 1);
  std::vector<Instruction>& list = program.ranks[0];
  ASSERT_EQ(list.back().kind, InstructionKind::kUpdate);
  Instruction extra = MakeClipGradients();
  list.push_back(extra);
  ExpectError(program, "found it after an Update");
}

TEST(Validator, EveryBucketIsReducedClippedAndUpdated) {
  Program unreduced = OneFOneB(1, 1);
  Erase(unreduced, 0, Find(unreduced, 0, "ReduceGradients chunk=0 bucket=0"));
  ExpectError(unreduced, "expected one on ReduceGradients chunk=0 bucket=0");

  Program not_updated = OneFOneB(1, 1);
  not_updated.ranks[0].pop_back();
  ExpectError(not_updated, "rank 0 chunk 0 bucket 0: found no Update");

  Program unclipped = OneFOneB(2, 1);
  Erase(unclipped, 1, Find(unclipped, 1, "ClipGradients"));
  ExpectError(unclipped, "found no dependency on ClipGradients");

  Program early = OneFOneB(1, 2);
  early.ranks[0][Find(early, 0, "ReduceGradients chunk=0 bucket=0")]
      .depends_on = {1};
  ExpectError(early, "found no dependency on the chunk's last backward");
}

TEST(Validator, FieldsOutOfRangeAreErrorsNotCrashes) {
  const std::vector<std::function<void(Instruction&)>> faults = {
      [](Instruction& i) { i.peer = 2; },
      [](Instruction& i) { i.peer = -1; },
      [](Instruction& i) { i.peer = 0; },  // itself
      [](Instruction& i) { i.hop = 1; },
      [](Instruction& i) { i.chunk = 1; },
      [](Instruction& i) { i.microbatch = 2; },
      [](Instruction& i) { i.payload = Payload::kNone; },
  };
  for (const auto& fault : faults) {
    Program program = OneFOneB(2, 2);
    fault(program.ranks[0][Find(program, 0,
                                "Send activation mb=1 hop=0 to=1 chunk=0")]);
    EXPECT_FALSE(ValidateProgram(program).ok());
  }
  Program bucket = OneFOneB(1, 1);
  bucket.ranks[0].back().bucket = 1;
  EXPECT_FALSE(ValidateProgram(bucket).ok());
  EXPECT_FALSE(ValidateProgram(Program()).ok());
}

// Zero-bubble schedules will split the backward.
TEST(Validator, SplitBackwardsCountAsOne) {
  using enum InstructionKind;
  const ComputeOrder order = {
      {{kForward, 0, 0}, {kBackwardInput, 0, 0}, {kBackwardWeight, 0, 0}}};
  Program program = BuildProgram(order, OneStagePerRank(1), 1, {1});
  EXPECT_TRUE(ValidateProgram(program).ok()) << ValidateProgram(program);
  Program half = BuildProgram({{{kForward, 0, 0}, {kBackwardInput, 0, 0}}},
                              OneStagePerRank(1), 1, {1});
  ExpectError(half, "found no BackwardWeight for its BackwardInput");
}

// V-shaped schedules will put neighbouring stages on one rank.
TEST(Validator, NeighbouringStagesOnOneRankNeedNoMessage) {
  using enum InstructionKind;
  const ComputeOrder order = {{{kForward, 0, 0},
                               {kForward, 0, 1},
                               {kBackward, 0, 1},
                               {kBackward, 0, 0}}};
  Program program = BuildProgram(order, {{0, 0}, {0, 1}}, 1, {1, 1});
  EXPECT_TRUE(ValidateProgram(program).ok()) << ValidateProgram(program);
  program.ranks[0][1].depends_on.clear();
  ExpectError(program, "expected one on chunk 0's pass of mb=0");
}

TEST(Validator, AMemoryLimitTooSmallNamesRankInstructionAndExcess) {
  const Program program = OneFOneB(4, 8);
  MemoryModel memory;
  memory.ranks.resize(4);
  for (RankMemory& rank : memory.ranks) {
    rank.always.parameters = 1000;
    rank.chunks = {{.activation_bytes = 100}};
    rank.limit_bytes = 1400;  // rank 0 holds four microbatches
  }
  EXPECT_TRUE(ValidateMemory(program, memory).ok());
  memory.ranks[0].limit_bytes = 1399;
  const absl::Status status = ValidateMemory(program, memory);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(MessageOf(status),
            "rank 0 instruction 7 'Forward mb=3 chunk=0': found a peak of 1400 "
            "bytes (parameters 1000, activations 400), expected at most 1399: "
            "1 too many");
  // The same limit does not do for GPipe's eight.
  const Program gpipe =
      BuildProgram(GPipeOrder(4, 8), OneStagePerRank(4), 8, {1, 1, 1, 1});
  memory.ranks[0].limit_bytes = 1400;
  EXPECT_FALSE(ValidateMemory(gpipe, memory).ok());
}

}  // namespace
}  // namespace trireme
