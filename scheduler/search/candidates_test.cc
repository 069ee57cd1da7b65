#include "scheduler/search/candidates.h"

#include <algorithm>
#include <set>
#include <vector>

#include "gtest/gtest.h"
#include "scheduler/pieces/transformer_pieces_testing.h"

namespace trireme {
namespace {

// What the README's demo trains: 49 tokens.
ModelShape SmallImages() {
  ModelShape model;
  model.layers = 4;
  model.hidden = 128;
  model.mlp_hidden = 512;
  model.heads = 4;
  model.tokens = 49;
  model.pieces = PiecesByFormulas();
  return model;
}

std::vector<Candidate> Candidates(int64_t devices, int64_t global_batch,
                                  const ModelShape& shape = SmallImages()) {
  const absl::StatusOr<Cluster> cluster =
      DescribeCluster({.nodes = 1, .devices_per_node = devices});
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  const absl::StatusOr<ClusterModel> model = ResolveCluster(*cluster);
  EXPECT_TRUE(model.ok()) << model.status();
  return EnumerateCandidates(shape, *model, global_batch, {});
}

// What a run would refuse is not proposed.
TEST(Candidates, TokensInWindowsAreNotShared) {
  ModelShape shape = SmallImages();
  shape.context_parallel = false;
  shape.sequence_parallel = false;
  bool of_tensor = false;
  for (const Candidate& candidate : Candidates(4, 64, shape)) {
    EXPECT_FALSE(candidate.sequence_parallel);
    if (candidate.verdict != VerdictCode::kPending) continue;
    EXPECT_EQ(candidate.cp, 1);
    of_tensor = of_tensor || candidate.tp == 4;
  }
  EXPECT_TRUE(of_tensor);
}

// The runtime pads sequences that do not divide, and tensor parallelism alone
// does not cut them.
TEST(Candidates, AnyNumberOfTokensCanBeSplit) {
  std::set<std::pair<int32_t, int32_t>> pending;
  for (const Candidate& candidate : Candidates(4, 64)) {
    if (candidate.verdict == VerdictCode::kPending) {
      pending.emplace(candidate.tp, candidate.cp);
    }
  }
  for (const auto& split :
       {std::pair(4, 1), std::pair(1, 4), std::pair(2, 2)}) {
    EXPECT_TRUE(pending.contains(split)) << split.first << " " << split.second;
  }
}

// Attention that gathers all keys exchanges no heads: every plan would be
// costed once more for each way to share them out.
TEST(Candidates, HeadsAreSharedOutWhereAttentionExchangesThem) {
  const auto shared = [](const ModelShape& shape) {
    const std::vector<Candidate> candidates = Candidates(4, 64, shape);
    return std::any_of(
        candidates.begin(), candidates.end(),
        [](const Candidate& candidate) { return candidate.ulysses > 1; });
  };
  ModelShape shape = SmallImages();
  EXPECT_TRUE(shared(shape));
  shape.pieces = [of_transformer = shape.pieces](
                     const ModelShape& model, const BlockSplit& split,
                     Plan::Recompute recompute, bool deferred) {
    ModelPieces pieces = of_transformer(model, split, recompute, deferred);
    for (PieceCollective& collective : pieces.blocks.front().collectives) {
      collective.group = PieceCollective::Group::kContext;
    }
    return pieces;
  };
  EXPECT_FALSE(shared(shape));
}

TEST(Candidates, MicrobatchesHaveEverySizeThatDividesAReplicasBatch) {
  const auto sizes = [](int64_t global_batch, int32_t pp) {
    std::set<int32_t> found;
    for (const Candidate& candidate : Candidates(2, global_batch)) {
      if (candidate.tp == 1 && candidate.cp == 1 && candidate.pp == pp &&
          candidate.verdict == VerdictCode::kPending) {
        found.insert(candidate.microbatch_size);
      }
    }
    return found;
  };
  // Two replicas of 9 and of 24 samples, and one of 24.
  EXPECT_EQ(sizes(18, 1), (std::set<int32_t>{1, 3, 9}));
  EXPECT_EQ(sizes(48, 1), (std::set<int32_t>{1, 2, 3, 4, 6, 8, 12, 24}));
  EXPECT_EQ(sizes(24, 2), (std::set<int32_t>{1, 2, 3, 4, 6, 8, 12}));
}

}  // namespace
}  // namespace trireme
