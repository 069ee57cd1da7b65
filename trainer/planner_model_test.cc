// What the planner believes of the model's layers against the layers.

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "models/dit/dit_family.h"
#include "models/objective/rectified_flow.h"
#include "parallel/chunk_pass.h"
#include "parallel/process_grid.h"
#include "runtime/comm/dry.h"
#include "runtime/comm/forwarding_testing.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "scheduler/pieces/block_collectives.h"
#include "scheduler/pieces/model_shape.h"
#include "trainer/local_model.h"
#include "trainer/model_shape_of.h"
#include "trainer/training_setup.h"

namespace trireme {
namespace {

using Kind = BlockCollective::Kind;
using Group = BlockCollective::Group;

// (group, kind, bytes) → how often.
using Counts = std::map<std::tuple<Group, Kind, int64_t>, int>;

Group GroupOf(const std::string& name) {
  if (name.starts_with("tp activations") || name.starts_with("tp backward")) {
    return Group::kTensor;
  }
  if (name.starts_with("cp activations")) return Group::kContext;
  if (name.starts_with("cp heads")) return Group::kHeads;
  EXPECT_TRUE(name.starts_with("cp ring")) << name;
  return Group::kRing;
}

// Counts what is asked of communicators for activations.
Interceptor RecorderInto(Counts& counts) {
  return [&counts](Communicator& inner, Operation operation) {
    const auto count = [&](Kind kind, const Tensor& data) {
      if (inner.size() == 1) return;
      ++counts[{GroupOf(inner.name()), kind, data.bytes()}];
    };
    switch (operation.kind) {
      case Operation::Kind::kAllReduce:
        count(Kind::kAllReduce, operation.input);
        break;
      case Operation::Kind::kReduceScatter:
        count(Kind::kReduceScatter, operation.input);
        break;
      case Operation::Kind::kAllGather:
        count(Kind::kAllGather, operation.output);
        break;
      case Operation::Kind::kAllToAll:
        count(Kind::kAllToAll, operation.input);
        break;
      case Operation::Kind::kSend:
        count(Kind::kRingStep, operation.input);
        break;
      case Operation::Kind::kReceive:
        break;
      default:
        ADD_FAILURE() << OperationText(operation);
    }
    return inner.Run(std::move(operation));
  };
}

enum class Text { kNone, kCross, kJoint };

struct Case {
  Text text = Text::kNone;
  int tp = 1;
  int cp = 1;
  int ulysses = 1;
  bool sequence_parallel = false;
  int64_t height = 16;

  std::string Name() const {
    return fmt::format("{}_tp{}_cp{}_ulysses{}{}_height{}",
                       text == Text::kNone    ? "class"
                       : text == Text::kCross ? "cross"
                                              : "joint",
                       tp, cp, ulysses, sequence_parallel ? "_sequence" : "",
                       height);
  }
};

constexpr int64_t kMicrobatch = 3;

class PlannerModelTest : public testing::TestWithParam<Case> {
 protected:
  PlannerModelTest() {
    DitConfig config;
    config.hidden = 32;
    config.layers = 3;
    config.heads = 8;
    config.mlp_hidden = 96;
    config.classes = 10;
    config.image = {.channels = 1, .height = GetParam().height, .width = 8};
    if (GetParam().text != Text::kNone) {
      config.text_tokens = 5;
      config.text_width = 6;
      config.text_attention =
          GetParam().text == Text::kCross ? Dit::CROSS : Dit::JOINT;
    }
    setup_.family = MakeDitFamily(config);
    setup_.objective = std::make_shared<RectifiedFlowObjective>(
        RectifiedFlowConfig(), /*seed=*/0, kMicrobatch);
    setup_.dtype = DType::kBFloat16;
  }

  BlockSplit Split() const {
    return {.tp = GetParam().tp,
            .cp = GetParam().cp,
            .ulysses = GetParam().ulysses,
            .sequence_parallel = GetParam().sequence_parallel,
            .microbatch_size = kMicrobatch};
  }

  // Runs one microbatch through blocks [first, end) on rank 0 of the grid.
  // `message_bytes`: of what a chunk of them receives.
  void Run(int64_t first, int64_t end, Counts& forward, Counts& backward,
           int64_t* message_bytes = nullptr) {
    const Case& c = GetParam();
    Counts counts;
    DryWorld dry(0, c.tp * c.cp);
    ForwardingWorld world(dry, RecorderInto(counts));
    const auto grid = ProcessGrid::Create({.tp = c.tp, .cp = c.cp}, {}, 0);
    CHECK_OK(grid.status());
    CpuDevice device(int64_t{1} << 40, CpuDevice::Mode::kDry);
    LocalModel model(setup_, *grid, world, {.ulysses = c.ulysses},
                     {{{.blocks = {.first = first, .end = end},
                        .sequence_parallel = c.sequence_parallel,
                        .microbatch_size = kMicrobatch}}},
                     device);
    model.MakeGradients();
    model.inputs().Set(EmptyBatch(device, model.Fields(), kMicrobatch),
                       *setup_.objective);
    Chunk& chunk = *model.part().chunk;
    if (message_bytes != nullptr) {
      *message_bytes = 0;
      for (const BoundarySpec& spec : chunk.Boundary(0)) {
        *message_bytes += spec.shape.num_elements() * DTypeSize(spec.dtype);
      }
    }
    AllResident all;
    ChunkPass pass(model.context(), chunk, all, /*microbatch=*/0);
    pass.Forward(EmptyBoundary(device, chunk.Boundary(0)));
    CHECK_OK(model.status());
    forward = std::exchange(counts, {});
    pass.Backward(EmptyBoundary(device, chunk.Boundary(chunk.num_units())),
                  Tape::WeightGradients::kImmediate);
    backward = counts;
  }

  TrainingSetup setup_;
};

void Add(const std::vector<BlockCollective>& list, Counts& forward,
         Counts& backward) {
  for (const BlockCollective& collective : list) {
    const std::tuple key(collective.group, collective.kind, collective.bytes);
    if (collective.forward > 0) forward[key] += collective.forward;
    if (collective.backward > 0) backward[key] += collective.backward;
  }
}

// A collective that the planner does not know of makes every plan with it look
// faster than it is.
TEST_P(PlannerModelTest, CollectivesAreThoseOfTheLayers) {
  const ModelShape shape = ModelShapeOf(setup_);
  // Blocks alone; with the embedding; the head, with a block, whose own is
  // taken from the first.
  Counts forward, backward, planned_forward, planned_backward;
  Run(1, 2, forward, backward);
  Add(BlockCollectives(shape, Split()), planned_forward, planned_backward);
  EXPECT_EQ(forward, planned_forward);
  EXPECT_EQ(backward, planned_backward);

  Run(0, 1, forward, backward);
  Add(EmbeddingCollectives(shape, Split()), planned_forward, planned_backward);
  EXPECT_EQ(forward, planned_forward);
  EXPECT_EQ(backward, planned_backward);

  // The last block of joint text is another one.
  if (GetParam().text == Text::kJoint) return;
  planned_forward.clear();
  planned_backward.clear();
  Run(2, 3, forward, backward);
  Add(BlockCollectives(shape, Split()), planned_forward, planned_backward);
  Add(HeadCollectives(shape, Split()), planned_forward, planned_backward);
  EXPECT_EQ(forward, planned_forward);
  EXPECT_EQ(backward, planned_backward);
}

TEST_P(PlannerModelTest, MessagesAreThoseOfTheChunks) {
  Counts forward, backward;
  int64_t bytes = 0;
  Run(1, 2, forward, backward, &bytes);
  EXPECT_EQ(MessageBytes(ModelShapeOf(setup_), Split()), bytes);
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const Text text : {Text::kNone, Text::kCross, Text::kJoint}) {
    for (const int tp : {1, 2}) {
      for (const auto& [cp, ulysses] : {std::pair(1, 1), std::pair(2, 1),
                                        std::pair(2, 2), std::pair(4, 2)}) {
        for (const bool sequence : {false, true}) {
          if (sequence && tp == 1) continue;
          cases.push_back({.text = text,
                           .tp = tp,
                           .cp = cp,
                           .ulysses = ulysses,
                           .sequence_parallel = sequence});
        }
      }
    }
  }
  // 20 tokens: not to be divided without padding.
  cases.push_back({.tp = 2, .cp = 4, .sequence_parallel = true, .height = 10});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Splits, PlannerModelTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.Name(); });

}  // namespace
}  // namespace trireme
