// What a model may and may not do with sharded activations: every rule of
// axis_state.h, refused when it is broken, on one rank as on many.

#include "parallel/grid/axis_state.h"

#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "parallel/grid/dim_collectives.h"
#include "parallel/grid/transitions.h"
#include "parallel/layers/functional.h"
#include "parallel/layers/layers.h"
#include "runtime/comm/dry.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

class AxisStateTest : public testing::TestWithParam<int> {
 protected:
  AxisStateTest()
      : world_(0, GetParam()),
        grid_(*ProcessGrid::Create({.tp = GetParam()}, {}, 0)),
        communicators_(world_, grid_),
        parallel_(device_, grid_, communicators_),
        store_(device_, DType::kFloat32, 0) {}

  ShardedVariable Activation3(AxisState tp, int64_t width = 8) {
    ShardedVariable x{
        Variable(Tensor::Empty(device_, {2, 4, width}, DType::kFloat32)), {}};
    x.states[Axis::kTensor] = tp;
    x.states[Axis::kData] = AxisState::Shard(0);
    return x;
  }

  std::string Refusal() { return MessageOf(parallel_.status()); }

  CpuDevice device_{1 << 30, CpuDevice::Mode::kDry};
  DryWorld world_;
  ProcessGrid grid_;
  Communicators communicators_;
  ParallelContext parallel_;
  ParameterStore store_;
  Tape tape_{device_};
  ForwardContext context_{tape_, parallel_};
};

INSTANTIATE_TEST_SUITE_P(TensorParallelSizes, AxisStateTest,
                         testing::Values(1, 2));

TEST_P(AxisStateTest, RefusesAnImpossibleTransition) {
  Transition(context_, Activation3(AxisState::Replicate()), Axis::kTensor,
             AxisState::Partial());
  EXPECT_NE(Refusal().find("from Replicate to Partial over tp"),
            std::string::npos)
      << Refusal();
}

TEST_P(AxisStateTest, RefusesANonlinearityOfAPartialSum) {
  Activate(context_, Activation::kSilu, Activation3(AxisState::Partial()));
  EXPECT_NE(Refusal().find("Partial over tp; expected it to be reduced first"),
            std::string::npos)
      << Refusal();
}

TEST_P(AxisStateTest, RefusesANormOverShardedChannels) {
  Norm(context_, NormKind::kLayer, Activation3(AxisState::Shard(2)), nullptr,
       nullptr, 1e-6);
  EXPECT_NE(Refusal().find("mixes dim 2"), std::string::npos) << Refusal();
}

TEST_P(AxisStateTest, RefusesAttentionOverShardedTokens) {
  SelfAttention(context_, Activation3(AxisState::Shard(1), 12), 2, {});
  EXPECT_NE(Refusal().find("mixes dim 1"), std::string::npos) << Refusal();
}

// An Invariant operand next to a sharded one would get a gradient that lacks
// the other ranks' parts.
TEST_P(AxisStateTest, RefusesMixingInvariantAndShard) {
  Add(context_, Activation3(AxisState::Invariant()),
      Activation3(AxisState::Shard(2)));
  EXPECT_NE(Refusal().find("operands are Invariant and Shard(2)"),
            std::string::npos)
      << Refusal();
}

TEST_P(AxisStateTest, RefusesARowParallelLayerOnWholeChannels) {
  const RowParallelLinear layer(store_, grid_, "out", 8, 8);
  layer.Forward(context_, Activation3(AxisState::Invariant()));
  EXPECT_NE(Refusal().find("'out.weight'"), std::string::npos) << Refusal();
  EXPECT_NE(Refusal().find("expected Shard(last) over tp"), std::string::npos);
}

TEST_P(AxisStateTest, RefusesAParameterUnderTwoRules) {
  Parameter& weight = store_.Create("scale", {8}, {},
                                    {.kind = Initializer::Kind::kOnes}, false);
  Norm(context_, NormKind::kRms, Activation3(AxisState::Invariant()), &weight,
       nullptr, 1e-6);
  EXPECT_TRUE(parallel_.status().ok()) << Refusal();
  Norm(context_, NormKind::kRms, Activation3(AxisState::Shard(1)), &weight,
       nullptr, 1e-6);
  EXPECT_NE(Refusal().find("'scale' is used with activations in different"),
            std::string::npos)
      << Refusal();
}

// What each kind of use means for the reduction of a gradient.
TEST_P(AxisStateTest, FindsTheAxesOfGradientSums) {
  Parameter& on_whole =
      store_.Create("a", {8}, {}, {.kind = Initializer::Kind::kOnes}, false);
  Parameter& on_shard =
      store_.Create("b", {8}, {}, {.kind = Initializer::Kind::kOnes}, false);
  Norm(context_, NormKind::kRms, Activation3(AxisState::Invariant()), &on_whole,
       nullptr, 1e-6);
  Norm(context_, NormKind::kRms, Activation3(AxisState::Shard(1)), &on_shard,
       nullptr, 1e-6);
  EXPECT_FALSE(on_whole.gradient_sum_axes.contains(Axis::kTensor));
  EXPECT_TRUE(on_whole.gradient_sum_axes.contains(Axis::kData));
  EXPECT_TRUE(on_shard.gradient_sum_axes.contains(Axis::kTensor));
}

TEST_P(AxisStateTest, ALegalBlockIsNotRefused) {
  const ColumnParallelLinear in(store_, grid_, "in", 8, 16);
  const RowParallelLinear out(store_, grid_, "out", 16, 8);
  const ShardedVariable y = out.Forward(
      context_,
      Activate(context_, Activation::kGeluTanh,
               in.Forward(context_, Activation3(AxisState::Invariant()))));
  EXPECT_TRUE(parallel_.status().ok()) << Refusal();
  EXPECT_EQ(y.states[Axis::kTensor], AxisState::Invariant());
  EXPECT_EQ(y.value().shape(), (Shape{2, 4, 8}));
}

// Every rank ends up with its slice of the other dim, and gradients go back.
TEST(TransitionTest, FromOneShardedDimToAnother) {
  constexpr int kRanks = 2;
  const Shape whole = {2, 4, 6};
  std::vector<float> values(whole.num_elements());
  std::iota(values.begin(), values.end(), 0.0f);
  RunThreadRanks(kRanks, [&](CommunicatorFactory& factory, int rank) {
    CpuDevice device(1 << 24);
    const auto grid = ProcessGrid::Create({.tp = kRanks}, {}, rank);
    ASSERT_TRUE(grid.ok()) << grid.status();
    Communicators communicators(factory, *grid);
    ParallelContext parallel(device, *grid, communicators);
    const Tensor full = Tensor::FromValues<float>(
        device, whole, std::span<const float>(values));
    const auto slice = [&](int dim) {
      return SliceDim(full, dim, kRanks, rank);
    };
    for (const auto& [from, to] :
         {std::pair(1, 2), std::pair(2, 1), std::pair(1, 0)}) {
      Tape tape(device);
      ForwardContext context{tape, parallel};
      ShardedVariable x{tape.Leaf(slice(from)), {}};
      x.states[Axis::kTensor] = AxisState::Shard(from);
      const ShardedVariable y =
          Transition(context, x, Axis::kTensor, AxisState::Shard(to));
      EXPECT_EQ(y.states[Axis::kTensor], AxisState::Shard(to));
      EXPECT_EQ(y.value().shape(), slice(to).shape());
      EXPECT_EQ(y.value().ToVector<float>(), slice(to).ToVector<float>());
      tape.Backward(std::vector{y.variable}, std::vector{slice(to)},
                    Tape::WeightGradients::kImmediate);
      EXPECT_EQ(tape.TakeGradient(x.variable).ToVector<float>(),
                slice(from).ToVector<float>());
    }
    EXPECT_TRUE(parallel.status().ok()) << parallel.status();
  });
}

}  // namespace
}  // namespace trireme
