// A schedule becomes instruction lists that every transport can run: also one
// whose sends block until the receiver has posted its receive.

#include "scheduler/partial/program.h"

#include <algorithm>
#include <random>

#include "gtest/gtest.h"
#include "scheduler/partial/candidate_paths.h"
#include "scheduler/partial/validator.h"
#include "scheduler/program/validator.h"

namespace trireme {
namespace {

// As many for each holding: every node's stage, and the data nodes' heads.
std::vector<int32_t> Buckets(const SkipInstance& instance, int32_t each) {
  return std::vector<int32_t>(instance.num_nodes() + instance.num_data_nodes(),
                              each);
}

SkipInstance RandomInstance(std::mt19937& random) {
  SkipInstance instance;
  const int32_t stages = 3 + random() % 4;
  int32_t node = 0;
  for (int32_t s = 0; s < stages; ++s) {
    instance.groups.emplace_back();
    for (uint32_t i = 0; i <= random() % 3; ++i) {
      instance.groups.back().push_back(node++);
    }
  }
  // Whole numbers make many events coincide.
  const bool whole = random() % 2 == 0;
  auto seconds = [&](int32_t least) {
    return whole ? least + random() % 3 : least + (random() % 1000) / 500.0;
  };
  for (int32_t u = 0; u < node; ++u) {
    instance.forward_s.push_back(seconds(1));
    instance.transfer_s.emplace_back();
    for (int32_t v = 0; v < node; ++v) {
      instance.transfer_s[u].push_back(seconds(0));
    }
  }
  instance.path_length = 2 + random() % (stages - 1);
  instance.microbatches_per_data_node = 1 + random() % 5;
  instance.slots_per_node = 1 + random() % 4;
  instance.equal_stage_visits = false;
  return instance;
}

// Any paths, any preferences; empty if the dispatcher comes to a standstill.
SkipSchedule RandomSchedule(const SkipInstance& instance,
                            std::mt19937& random) {
  SkipSchedule schedule;
  std::vector<double> keys;
  for (int32_t m = 0; m < instance.num_microbatches(); ++m) {
    const auto candidates =
        CandidatePaths(instance, DataNodeOf(instance, m)).paths;
    schedule.paths.push_back(candidates[random() % candidates.size()].path);
    for (int32_t kind = 0; kind < 3; ++kind) keys.push_back(random());
  }
  SkipDispatcher dispatcher(instance);
  if (!dispatcher.Run(schedule.paths, keys)) return {};
  schedule.order = dispatcher.order();
  return schedule;
}

TEST(SkipProgramTest, RandomSchedulesRunWithSynchronousSends) {
  std::mt19937 random(7);
  int32_t built = 0;
  while (built < 1000) {
    const SkipInstance instance = RandomInstance(random);
    const SkipSchedule schedule = RandomSchedule(instance, random);
    if (schedule.paths.empty()) continue;
    const auto program =
        BuildSkipProgram(instance, schedule, Buckets(instance, 2));
    ASSERT_TRUE(program.ok()) << program.status();
    const absl::Status valid = ValidateProgram(program->program);
    ASSERT_TRUE(valid.ok()) << valid << ToText(program->program);
    ++built;
  }
}

// Stages 0 (two data nodes), 1 and 2; one goes 1, 2 and the other 2, 1.
SkipInstance Crossing() {
  SkipInstance instance;
  instance.groups = {{0, 1}, {2}, {3}};
  instance.forward_s.assign(4, 1.0);
  instance.transfer_s.assign(4, std::vector<double>(4, 0.5));
  instance.path_length = 3;
  instance.microbatches_per_data_node = 1;
  instance.slots_per_node = 1;
  return instance;
}
const std::vector<NodePath> kCrossing = {{0, 2, 3}, {1, 3, 2}};

// Each holds the slot that the other waits for: whatever runs what is ready
// stops for ever, and a plan of it is refused.
TEST(SkipProgramTest, RejectsACycleThroughSlots) {
  const SkipInstance instance = Crossing();
  SkipDispatcher dispatcher(instance);
  EXPECT_FALSE(dispatcher.Run(kCrossing, {2, 0, 1, 2, 0, 1}));
  SkipSchedule schedule = {kCrossing,
                           {{{0, 0}, {0, 3}, {0, 6}},
                            {{1, 0}, {1, 3}, {1, 6}},
                            {{0, 1}, {0, 5}, {1, 2}, {1, 4}},
                            {{1, 1}, {1, 5}, {0, 2}, {0, 4}}}};
  const auto program =
      BuildSkipProgram(instance, schedule, Buckets(instance, 1));
  ASSERT_FALSE(program.ok());
  EXPECT_NE(program.status().message().find("waiting for ever"),
            std::string::npos)
      << program.status();
  // With the second after the first it runs.
  std::swap(schedule.order[3][0], schedule.order[3][2]);
  std::swap(schedule.order[3][1], schedule.order[3][3]);
  EXPECT_TRUE(BuildSkipProgram(instance, schedule, Buckets(instance, 1)).ok());
}

SkipProgram TwoSlots(SkipInstance& instance) {
  instance.slots_per_node = 2;
  SkipDispatcher dispatcher(instance);
  EXPECT_TRUE(dispatcher.Run(kCrossing, {2, 0, 1, 2, 0, 1}));
  const auto program = BuildSkipProgram(
      instance, {kCrossing, dispatcher.order()}, Buckets(instance, 1));
  EXPECT_TRUE(program.ok()) << program.status();
  return *program;
}

TEST(SkipProgramTest, CountsTheVisitsThatGradientsAreMeansOver) {
  SkipInstance instance = Crossing();
  instance.path_length = 3;
  const SkipProgram program = TwoSlots(instance);
  EXPECT_EQ(program.visits, (std::vector<int32_t>{2, 2, 2, 2}));
  // Data nodes hold stage 0 and the head.
  EXPECT_EQ(program.model_stage, (std::vector<int32_t>{0, 3, 0, 3, 1, 2}));
}

// Nodes 2 and 3 send to each other at the same time: had they posted their
// receives only when they need the message, synchronous sends would hang.
TEST(SkipProgramTest, ReportsReceivesPostedTooLate) {
  SkipInstance instance = Crossing();
  SkipProgram program = TwoSlots(instance);
  ASSERT_TRUE(ValidateProgram(program.program).ok());
  for (const int32_t node : {2, 3}) {
    std::vector<Instruction>& list = program.program.ranks[node];
    const auto recv = std::find_if(
        list.begin(), list.end(), [](const Instruction& instruction) {
          return instruction.kind == InstructionKind::kRecv &&
                 instruction.hop == 1;
        });
    const auto send = std::find_if(
        list.begin(), list.end(), [](const Instruction& instruction) {
          return instruction.kind == InstructionKind::kSend &&
                 instruction.hop == 1;
        });
    ASSERT_LT(recv, send);
    // Swap them and what refers to them.
    const auto r = static_cast<int32_t>(recv - list.begin());
    const auto s = static_cast<int32_t>(send - list.begin());
    std::swap(*recv, *send);
    list[r].depends_on.clear();
    for (Instruction& instruction : list) {
      for (int32_t& index : instruction.depends_on) {
        if (index == r) index = s;
      }
    }
  }
  EXPECT_FALSE(ValidateProgram(program.program).ok());
}

TEST(SkipProgramTest, ReportsAMissingSend) {
  SkipInstance instance = Crossing();
  SkipProgram program = TwoSlots(instance);
  std::vector<Instruction>& list = program.program.ranks[2];
  const auto send = std::find_if(
      list.begin(), list.end(), [](const Instruction& instruction) {
        return instruction.kind == InstructionKind::kSend;
      });
  const auto at = static_cast<int32_t>(send - list.begin());
  list.erase(send);
  for (Instruction& instruction : list) {
    for (int32_t& index : instruction.depends_on) index -= index > at;
  }
  const absl::Status status = ValidateProgram(program.program);
  EXPECT_NE(status.message().find("sends on rank 2"), std::string::npos)
      << status;
}

}  // namespace
}  // namespace trireme
