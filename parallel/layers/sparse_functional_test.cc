// Which states of a grid's axes the operands of sparse attention may have.

#include "parallel/layers/sparse_functional.h"

#include <string>

#include "gtest/gtest.h"
#include "runtime/comm/dry.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

class SparseFunctionalTest : public testing::Test {
 protected:
  static constexpr int64_t kTokens = 6;

  ShardedVariable Variable3(int64_t tokens, int64_t width, AxisState tp,
                            AxisState cp) {
    ShardedVariable x{
        Variable(Tensor::Empty(device_, {2, tokens, width}, DType::kFloat32)),
        {}};
    x.states[Axis::kTensor] = tp;
    x.states[Axis::kContext] = cp;
    x.states[Axis::kData] = AxisState::Shard(0);
    return x;
  }
  // Heads over tp, queries over cp; keys as they are given.
  ShardedVariable Attend(AxisState keys, AxisState gates) {
    const AxisState heads = AxisState::Shard(2), tokens = AxisState::Shard(1);
    const AxisState all = AxisState::Replicate();
    const ShardedVariable k = Variable3(kTokens, 2, heads, keys);
    const ShardedVariable small = Variable3(blocks_.small.most, 2, heads, all);
    return SparseAttention(context_,
                           {Variable3(3, 4, heads, tokens), k, k, small, small,
                            Variable3(3, 3, gates, tokens)},
                           blocks_, /*head_dim=*/2, {.top_k = 2});
  }
  std::string Refusal() { return MessageOf(parallel_.status()); }

  CpuDevice device_{1 << 30, CpuDevice::Mode::kDry};
  DryWorld world_{0, 4};
  ProcessGrid grid_ = *ProcessGrid::Create({.tp = 2, .cp = 2}, {}, 0);
  Communicators communicators_{world_, grid_};
  ParallelContext parallel_{device_, grid_, communicators_};
  Tape tape_{device_};
  ForwardContext context_{tape_, parallel_};
  SpatialBlocks blocks_ =
      PartitionTokens(Tensor::Empty(device_, {2, kTokens, 3}, DType::kInt32),
                      Tensor::Empty(device_, {2}, DType::kInt32), 16);
};

TEST_F(SparseFunctionalTest, QueriesMayBeShardedByHeadsAndTokens) {
  const ShardedVariable y =
      Attend(AxisState::Replicate(), AxisState::Replicate());
  EXPECT_EQ(Refusal(), "");
  EXPECT_EQ(y.value().shape(), (Shape{2, 3, 4}));
  EXPECT_EQ(y.states[Axis::kTensor], AxisState::Shard(2));
  EXPECT_EQ(y.states[Axis::kContext], AxisState::Shard(1));
}

// A rank would attend to its own tokens only, or get no gradient of the others'
// use of them.
TEST_F(SparseFunctionalTest, KeysAreOfAllTokens) {
  Attend(AxisState::Shard(1), AxisState::Replicate());
  EXPECT_EQ(Refusal(),
            "sparse attention: keys or values are Shard(1) over cp, expected "
            "Replicate");
}

TEST_F(SparseFunctionalTest, KeysThatAreInvariantWouldMissGradients) {
  Attend(AxisState::Invariant(), AxisState::Replicate());
  EXPECT_EQ(Refusal(),
            "sparse attention: keys or values are Invariant over cp, expected "
            "Replicate");
}

TEST_F(SparseFunctionalTest, GatesAreOfAllHeads) {
  Attend(AxisState::Replicate(), AxisState::Invariant());
  EXPECT_EQ(Refusal(),
            "sparse attention: gates are Invariant over tp, expected "
            "Replicate");
}

// A block of which a rank has but a part would have that part's mean.
TEST_F(SparseFunctionalTest, MeansAreOverAllTokensOfABlock) {
  const AxisState heads = AxisState::Shard(2), tokens = AxisState::Shard(1);
  const ShardedVariable own =
      BlockMean(context_, Variable3(kTokens, 4, heads, tokens), blocks_,
                BlockSize::kSmall);
  EXPECT_EQ(Refusal(), "");
  EXPECT_EQ(own.states[Axis::kContext], tokens);
  BlockMean(context_, Variable3(2 * kTokens, 4, heads, tokens), blocks_,
            BlockSize::kSmall);
  EXPECT_EQ(
      Refusal(),
      "mean of blocks: tokens are Shard(1) over cp, expected all of them, "
      "or blocks of each rank's own");
}

}  // namespace
}  // namespace trireme
