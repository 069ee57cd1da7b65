// What the planner believes of the model's layers against the layers.

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "models/dit/dit.h"
#include "models/dit/dit_chunk.h"
#include "parallel/communicators.h"
#include "parallel/context.h"
#include "parallel/parameter_store.h"
#include "parallel/process_grid.h"
#include "runtime/autograd/tape.h"
#include "runtime/comm/dry.h"
#include "runtime/comm/forwarding_testing.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "scheduler/planner/block_collectives.h"
#include "scheduler/planner/model_shape.h"
#include "trainer/model_shape_of.h"
#include "trainer/training_setup.h"

namespace trireme {
namespace {

using Kind = BlockCollective::Kind;
using Group = BlockCollective::Group;

// (group, kind, bytes) → how often.
using Counts = std::map<std::tuple<Group, Kind, int64_t>, int>;

// Counts what is asked of communicators for activations.
class Recorder final : public ForwardingCommunicator {
 public:
  Recorder(std::unique_ptr<Communicator> inner, Counts& counts)
      : ForwardingCommunicator(std::move(inner)), counts_(counts) {}

  Event AllReduce(const Tensor& data, ReduceOp op,
                  std::string_view operation) override {
    Count(Kind::kAllReduce, data);
    return ForwardingCommunicator::AllReduce(data, op, operation);
  }
  Event ReduceScatter(const Tensor& input, const Tensor& output,
                      std::string_view operation) override {
    Count(Kind::kReduceScatter, input);
    return ForwardingCommunicator::ReduceScatter(input, output, operation);
  }
  Event AllGather(const Tensor& input, const Tensor& output,
                  std::string_view operation) override {
    Count(Kind::kAllGather, output);
    return ForwardingCommunicator::AllGather(input, output, operation);
  }
  Event AllToAll(const Tensor& input, const Tensor& output,
                 std::string_view operation) override {
    Count(Kind::kAllToAll, input);
    return ForwardingCommunicator::AllToAll(input, output, operation);
  }
  Event AllToAllV(const Tensor& input, std::span<const int64_t> send_rows,
                  const Tensor& output, std::span<const int64_t> receive_rows,
                  std::string_view operation) override {
    ADD_FAILURE() << "all-to-all of unequal slices: " << operation;
    return ForwardingCommunicator::AllToAllV(input, send_rows, output,
                                             receive_rows, operation);
  }
  Event Broadcast(const Tensor& data, int root,
                  std::string_view operation) override {
    ADD_FAILURE() << "broadcast: " << operation;
    return ForwardingCommunicator::Broadcast(data, root, operation);
  }
  Event Send(const Tensor& data, int to, int tag,
             std::string_view operation) override {
    Count(Kind::kRingStep, data);
    return ForwardingCommunicator::Send(data, to, tag, operation);
  }

 private:
  void Count(Kind kind, const Tensor& data) {
    const Group group = name().starts_with("tp activations")   ? Group::kTensor
                        : name().starts_with("tp backward")    ? Group::kTensor
                        : name().starts_with("cp activations") ? Group::kContext
                        : name().starts_with("cp heads")       ? Group::kHeads
                                                               : Group::kRing;
    EXPECT_TRUE(group != Group::kRing || name().starts_with("cp ring"))
        << name();
    if (size() > 1) ++counts_[{group, kind, data.bytes()}];
  }

  Counts& counts_;
};

class RecordingWorld final : public CommunicatorFactory {
 public:
  RecordingWorld(int size, Counts& counts) : inner_(0, size), counts_(counts) {}
  int world_rank() const override { return inner_.world_rank(); }
  int world_size() const override { return inner_.world_size(); }
  using CommunicatorFactory::Create;
  std::unique_ptr<Communicator> Create(std::span<const int> ranks,
                                       std::string_view name,
                                       Progress progress) override {
    return std::make_unique<Recorder>(inner_.Create(ranks, name, progress),
                                      counts_);
  }

 private:
  DryWorld inner_;
  Counts& counts_;
};

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
    setup_.model.hidden = 32;
    setup_.model.layers = 3;
    setup_.model.heads = 8;
    setup_.model.mlp_hidden = 96;
    setup_.model.classes = 10;
    setup_.model.image = {
        .channels = 1, .height = GetParam().height, .width = 8};
    if (GetParam().text != Text::kNone) {
      setup_.model.text_tokens = 5;
      setup_.model.text_width = 6;
      setup_.model.text_attention =
          GetParam().text == Text::kCross ? Dit::CROSS : Dit::JOINT;
    }
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
    RecordingWorld world(c.tp * c.cp, counts);
    const auto grid = ProcessGrid::Create({.tp = c.tp, .cp = c.cp}, {}, 0);
    CHECK_OK(grid.status());
    Communicators communicators(world, *grid, {.ulysses = c.ulysses});
    CpuDevice device(int64_t{1} << 40, CpuDevice::Mode::kDry);
    ParallelContext parallel(device, *grid, communicators,
                             {.sequence_parallel = c.sequence_parallel});
    ParameterStore store(device, setup_.dtype, /*seed=*/1);
    DitPart part(store, *grid, setup_.model,
                 {.blocks = {.first = first, .end = end},
                  .sequence_parallel = c.sequence_parallel});
    for (const auto& parameter : store.parameters()) {
      parameter->trainable = true;
      parameter->grad =
          Tensor::Zeros(device, parameter->value.shape(), DType::kFloat32);
    }
    DitChunk chunk(part, {.dtype = setup_.dtype,
                          .microbatch_size = kMicrobatch,
                          .global_batch = kMicrobatch});
    if (message_bytes != nullptr) {
      *message_bytes = 0;
      for (const TensorSpec& spec : chunk.InputSpecs()) {
        *message_bytes += spec.shape.num_elements() * DTypeSize(spec.dtype);
      }
    }
    chunk.set_batch(EmptyBatch(
        device, DitFields(setup_.model, part.has_embedding(), part.has_head()),
        kMicrobatch));
    Tape tape(device);
    ForwardContext context{tape, parallel};
    std::vector<Variable> inputs;
    for (const TensorSpec& spec : chunk.InputSpecs()) {
      inputs.push_back(
          tape.Leaf(Tensor::Empty(device, spec.shape, spec.dtype)));
    }
    const std::vector<ShardedVariable> outputs =
        chunk.Forward(context, 0, inputs);
    CHECK_OK(parallel.status());
    forward = std::exchange(counts, {});
    std::vector<Variable> variables;
    std::vector<Tensor> gradients;
    for (const ShardedVariable& output : outputs) {
      variables.push_back(output.variable);
      gradients.push_back(part.has_head() ? Tensor()
                                          : Tensor::EmptyLike(output.value()));
    }
    tape.Backward(variables, gradients, Tape::WeightGradients::kImmediate);
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
  EXPECT_EQ(MessageBytes(ModelShapeOf(setup_), Split(), /*scatter=*/false),
            bytes);
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
