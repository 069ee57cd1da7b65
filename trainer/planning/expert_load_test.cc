// Uneven routing in the planner: what the rank with most rows computes and
// receives decides how a step is carried out.

#include <algorithm>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "models/dit/dit_family.h"
#include "models/objective/rectified_flow.h"
#include "runtime/core/log.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/costs/estimate.h"
#include "scheduler/plan/plan.h"
#include "scheduler/search/candidate_plan.h"
#include "scheduler/search/refinement.h"
#include "trainer/planning/model_shape_of.h"

namespace trireme {
namespace {

constexpr int kRanks = 4;
constexpr int64_t kWidth = 1024;
constexpr int64_t kExperts = 8;
constexpr int64_t kTopK = 2;
constexpr int64_t kTokens = 1024;  // of a sample

TrainingSetup SetupWith(int64_t expert_hidden, int64_t experts = kExperts) {
  DitConfig config;
  config.hidden = kWidth;
  config.layers = 4;
  config.heads = 8;
  config.mlp_hidden = 4096;
  config.classes = 10;
  config.image = {.channels = 4, .height = 64, .width = 64};
  config.moe = MoeConfig{
      .experts = experts, .top_k = kTopK, .expert_hidden = expert_hidden};
  TrainingSetup setup;
  setup.family = MakeDitFamily(config);
  setup.objective = std::make_shared<RectifiedFlowObjective>(
      RectifiedFlowConfig(), /*seed=*/0, /*global_batch=*/kRanks);
  setup.dtype = DType::kBFloat16;
  setup.global_batch = kRanks;
  return setup;
}

ClusterModel FourDevices() {
  const auto cluster = DescribeCluster({.device = "H100",
                                        .nodes = kRanks,
                                        .devices_per_node = 1,
                                        .network = "ndr"});
  CHECK_OK(cluster.status());
  return *ResolveCluster(*cluster);
}

// So many samples on each rank, experts divided by all.
RankedPlan Improved(const ModelShape& model, const ClusterModel& cluster,
                    int64_t samples) {
  RankedPlan ranked;
  ranked.plan.mutable_grid()->set_dp(kRanks);
  ranked.plan.mutable_grid()->set_ep(kRanks);
  const auto plan = ResolvePlan(ranked.plan, {.world_size = kRanks,
                                              .global_batch = kRanks * samples,
                                              .num_blocks = model.layers,
                                              .heads = model.heads,
                                              .experts = model.experts});
  CHECK_OK(plan.status());
  ranked.plan = *plan;
  ranked.candidate = CandidateOf(ranked.plan);
  const auto estimate = EstimatePlan(model, cluster, ranked.plan);
  CHECK_OK(estimate.status());
  ranked.estimate = *estimate;
  CHECK_OK(PlanRefinement(model, cluster, kRanks * samples).Improve(ranked));
  return ranked;
}

ModelPieces PiecesAt(double load, int64_t chunks) {
  return PiecesOf(ModelShapeOf(SetupWith(256), load),
                  {.ep = kRanks, .row_chunks = chunks}, Plan::NONE,
                  /*deferred=*/false);
}

int64_t BytesOfRows(const ModelPieces& pieces) {
  int64_t bytes = 0;
  for (const PieceCollective& collective : pieces.blocks[0].collectives) {
    if (collective.kind != PieceCollective::Kind::kAllToAll) continue;
    bytes += collective.bytes * (collective.forward + collective.backward);
  }
  return bytes;
}

TEST(ExpertLoad, TheRankWithMostComputesAndReceivesSoMuchMore) {
  for (const int64_t chunks : {1, 4}) {
    const ModelPieces even = PiecesAt(1, chunks);
    const ModelPieces uneven = PiecesAt(1.5, chunks);
    // Of a SwiGLU: two products in, one out.
    const double experts = 2.0 * kTopK * kTokens * 3 * kWidth * 256;
    EXPECT_NEAR(ProductFlops(uneven.blocks[0].kernels.forward) -
                    ProductFlops(even.blocks[0].kernels.forward),
                0.5 * experts, 1e-3 * experts)
        << chunks;
    EXPECT_NEAR(static_cast<double>(BytesOfRows(uneven)),
                1.5 * static_cast<double>(BytesOfRows(even)),
                1e-2 * static_cast<double>(BytesOfRows(even)))
        << chunks;
    // Memory is taken for the most that may come, at any load.
    EXPECT_EQ(uneven.blocks[0].activation_bytes,
              even.blocks[0].activation_bytes);
  }
}

// Wide experts are more bytes than their rows, narrow ones fewer.
TEST(ExpertLoad, ALoadOfTwoHasWeightsOfWiderExpertsMove) {
  const ClusterModel cluster = FourDevices();
  int changed = 0;
  for (const int64_t width : {256, 384, 512, 768, 1024, 1536}) {
    const TrainingSetup setup = SetupWith(width);
    const RankedPlan even =
        Improved(ModelShapeOf(setup), cluster, /*samples=*/1);
    const RankedPlan uneven =
        Improved(ModelShapeOf(setup, 2), cluster, /*samples=*/1);
    const auto moves_weights = [](const RankedPlan& ranked) {
      return ranked.plan.experts().move() == Plan::Experts::WEIGHTS;
    };
    if (moves_weights(even)) {
      EXPECT_TRUE(moves_weights(uneven)) << width;
    } else {
      EXPECT_GT(uneven.estimate.step_s, even.estimate.step_s) << width;
      changed += moves_weights(uneven) ? 1 : 0;
    }
  }
  EXPECT_GE(changed, 1);
}

// Of experts that two ranks share, wide ones have their rows go to both; of
// narrower ones the slices come together, for one to get them; and narrow ones
// come to their rows.
TEST(ExpertLoad, TheWiderSharedExpertsAreTheMoreOfTheirRanksGetRows) {
  const ClusterModel cluster = FourDevices();
  std::vector<int> copies;
  for (const int64_t width : {512, 768, 1024, 1280, 1536, 2048, 4096}) {
    const RankedPlan improved = Improved(
        ModelShapeOf(SetupWith(width, kRanks / 2)), cluster, /*samples=*/1);
    const Plan::Experts& experts = improved.plan.experts();
    EXPECT_EQ(improved.candidate.row_copies,
              static_cast<int32_t>(experts.row_copies()));
    copies.push_back(experts.move() == Plan::Experts::WEIGHTS ? 0
                     : experts.row_copies() == 1              ? 1
                                                              : 2);
  }
  EXPECT_TRUE(std::is_sorted(copies.begin(), copies.end()))
      << testing::PrintToString(copies);
  EXPECT_EQ(copies.front(), 0);
  EXPECT_TRUE(std::find(copies.begin(), copies.end(), 1) != copies.end())
      << testing::PrintToString(copies);
  EXPECT_EQ(copies.back(), 2);
}

TEST(ExpertLoad, RowsGoInChunksWhereProductsHideThem) {
  const ClusterModel cluster = FourDevices();
  const ModelShape model = ModelShapeOf(SetupWith(/*expert_hidden=*/2048));
  const RankedPlan improved = Improved(model, cluster, /*samples=*/8);
  EXPECT_GT(improved.plan.experts().chunks(), 1U);
  EXPECT_EQ(improved.candidate.row_chunks,
            static_cast<int32_t>(improved.plan.experts().chunks()));
  Plan whole = improved.plan;
  whole.mutable_experts()->set_chunks(1);
  const auto estimate = EstimatePlan(model, cluster, whole);
  ASSERT_TRUE(estimate.ok()) << estimate.status();
  EXPECT_LT(improved.estimate.parts.ep_s, estimate->parts.ep_s);
  // What nothing hides is the first chunk on its way there and the last one on
  // its way back.
  EXPECT_GT(improved.estimate.parts.ep_s, 0);
}

}  // namespace
}  // namespace trireme
