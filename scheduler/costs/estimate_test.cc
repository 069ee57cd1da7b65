#include "scheduler/costs/estimate.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "scheduler/cluster/collectives.h"
#include "scheduler/cluster/nodes_testing.h"
#include "scheduler/pieces/transformer_pieces_testing.h"
#include "scheduler/plan/plan.h"

namespace trireme {
namespace {

ModelShape Dit() {
  ModelShape model;
  model.layers = 16;
  model.hidden = 2048;
  model.mlp_hidden = 8192;
  model.heads = 16;
  model.tokens = 4096;
  model.pieces = PiecesByFormulas({.modulation_parameters = 6 * 2048 * 2048});
  return model;
}

struct Split {
  uint32_t tp = 1, cp = 1, dp = 1, pp = 1;
  uint32_t microbatches = 8;
};

Plan PlanOf(const Split& split, const Plan& rest = {}) {
  Plan plan = rest;
  plan.mutable_grid()->set_tp(split.tp);
  plan.mutable_grid()->set_cp(split.cp);
  plan.mutable_grid()->set_dp(split.dp);
  plan.mutable_grid()->set_pp(split.pp);
  plan.set_microbatches(split.microbatches);
  const absl::StatusOr<Plan> resolved = ResolvePlan(
      plan, {.world_size = split.tp * split.cp * split.dp * split.pp,
             .global_batch = int64_t{split.dp} * split.microbatches,
             .num_blocks = 16,
             .heads = 16});
  EXPECT_TRUE(resolved.ok()) << resolved.status();
  return *resolved;
}

Estimate Estimated(const ClusterModel& cluster, const Plan& plan) {
  absl::StatusOr<Estimate> estimate = EstimatePlan(Dit(), cluster, plan);
  EXPECT_TRUE(estimate.ok()) << estimate.status();
  return estimate.ok() ? *std::move(estimate) : Estimate();
}

TEST(Estimate, FastSumsTakeWhatRingsTake) {
  const ClusterModel cluster = Nodes(2, 4);
  const auto reduce_s = [&](Plan::ReduceOrder order) {
    Plan rest;
    rest.set_reduce_order(order);
    const Plan plan = PlanOf({.dp = 8}, rest);
    const PlanCosts costs = PlanCoster(Dit(), cluster, plan).CostsOf(0);
    return costs.cost.chunks[0][0].reduce_s;
  };
  const std::vector<int32_t> all = {0, 1, 2, 3, 4, 5, 6, 7};
  const CollectiveSeconds ring =
      RingOf(cluster, all, 4).SecondsOf(CollectiveKind::kAllReduce);
  const double fast_s = reduce_s(Plan::FAST);
  const double bytes = (fast_s - ring.latency_s) / ring.s_per_byte;
  EXPECT_GT(bytes, 0);
  EXPECT_NEAR(reduce_s(Plan::RANKS),
              RingOf(cluster, all, 4, SumOrder::kRanks).AllReduce(bytes),
              1e-9 * fast_s);
  EXPECT_GT(reduce_s(Plan::RANKS), 1.2 * fast_s);
  // Nobody who says nothing gets bits that depend on NCCL.
  EXPECT_EQ(reduce_s(Plan::REDUCE_ORDER_UNSPECIFIED), reduce_s(Plan::RANKS));
}

// The norm is of all stages' gradients, also where nothing else of a step's end
// leaves a node.
TEST(Estimate, TheNormOfGradientsCrossesTheNetwork) {
  const ClusterModel cluster = Nodes(2, 4);
  const Plan plan = PlanOf({.dp = 4, .pp = 2});
  const PlanCosts costs = PlanCoster(Dit(), cluster, plan).CostsOf(0);
  EXPECT_DOUBLE_EQ(costs.cost.clip_s,
                   2 * 3 * cluster.LinkBetweenNodes(0, 1).latency_s);
}

// Sharded gradients go on behind the next microbatch: only what takes longer
// than one is waited for, seven times in eight microbatches, and the last one's
// at the end of the step.
TEST(Estimate, ShardedGradientsTravelBehindTheNextMicrobatch) {
  ClusterModel cluster = Nodes(4, 1);
  Plan rest;
  // Nothing but the links counts.
  rest.set_reduce_order(Plan::FAST);
  const auto cost_of = [&](Plan::Sharding sharding) {
    rest.set_sharding(sharding);
    const Plan plan = PlanOf({.dp = 4}, rest);
    return PlanCoster(Dit(), cluster, plan).CostsOf(0);
  };
  const PlanCosts fast = cost_of(Plan::OPTIMIZER);
  const ChunkCost& alone = fast.cost.chunks[0][0];
  const double compute_s = alone.forward_s + alone.backward_s;
  const double buckets = fast.buckets[0];
  const auto slow_down = [&](double microbatches) {
    const double factor = microbatches * compute_s / (buckets * alone.reduce_s);
    for (ClusterLink& link : cluster.node_links) {
      link = {.latency_s = 0,
              .bytes_per_s = Nodes(4, 1).node_links[1].bytes_per_s / factor,
              .shared_bytes_per_s = std::numeric_limits<double>::infinity()};
    }
  };
  slow_down(0.9);
  const ChunkCost hidden = cost_of(Plan::GRADIENTS).cost.chunks[0][0];
  EXPECT_DOUBLE_EQ(hidden.backward_s, alone.backward_s);
  EXPECT_DOUBLE_EQ(hidden.reduce_s,
                   cost_of(Plan::OPTIMIZER).cost.chunks[0][0].reduce_s);
  slow_down(1.5);
  const PlanCosts exposed = cost_of(Plan::GRADIENTS);
  const ChunkCost& chunk = exposed.cost.chunks[0][0];
  const double waits_s = chunk.backward_s - alone.backward_s;
  EXPECT_NEAR(waits_s / compute_s, 0.5 * 7 / 8, 0.01);
  EXPECT_DOUBLE_EQ(exposed.parts[0][0].dp_s, waits_s);
  EXPECT_NEAR(buckets * chunk.reduce_s - waits_s * (1 - 1 / buckets),
              buckets * cost_of(Plan::OPTIMIZER).cost.chunks[0][0].reduce_s,
              1e-9 * compute_s);
}

// One device, no communication: time is FLOPs over rate, and MFU says so.
TEST(Estimate, OneDeviceTakesItsArithmetic) {
  const ClusterModel cluster = Nodes(1, 1);
  const Estimate estimate = Estimated(cluster, PlanOf({}));
  const double least =
      8 * ModelTrainingFlops(Dit()) / cluster.devices[0].achieved_bf16_flops;
  EXPECT_GT(estimate.step_s, least);
  EXPECT_LT(estimate.step_s, 1.5 * least);
  EXPECT_NEAR(estimate.mfu,
              8 * ModelTrainingFlops(Dit()) / estimate.step_s / 312e12, 1e-12);
  EXPECT_EQ(estimate.parts.tp_s + estimate.parts.pp_s + estimate.parts.dp_s, 0);
}

// Products in FP8 take what the data sheet says of them.
TEST(Estimate, Float8ProductsTakeTheirRate) {
  const auto cluster = DescribeCluster({.device = "H100", .nodes = 1});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  ClusterModel model = ResolveCluster(*cluster).value();
  EXPECT_EQ(model.devices[0].PeakFlops(1), 1979e12);
  ModelShape shape = Dit();
  shape.pieces = [whole = shape.pieces](
                     const ModelShape& of, const BlockSplit& split,
                     Plan::Recompute recompute, bool deferred) {
    ModelPieces pieces = whole(of, split, recompute, deferred);
    for (PieceFigures& block : pieces.blocks) {
      for (auto* pass :
           {&block.kernels.forward, &block.kernels.backward_input}) {
        for (PieceKernel& kernel : *pass) {
          if (kernel.kind != PieceKernel::Kind::kProduct) continue;
          kernel.kind = PieceKernel::Kind::kFloat8Product;
        }
      }
    }
    return pieces;
  };
  const Plan plan = PlanOf({.dp = 8});
  const double bf16_s = EstimatePlan(Dit(), model, plan)->step_s;
  const double fp8_s = EstimatePlan(shape, model, plan)->step_s;
  // Two of three products, at twice the rate; attention is not among them.
  EXPECT_LT(fp8_s, 0.85 * bf16_s);
  EXPECT_GT(fp8_s, 2.0 / 3 * bf16_s);
  // Devices without such products compute others.
  model.devices[0].achieved_fp8_flops = model.devices[0].achieved_bf16_flops;
  EXPECT_DOUBLE_EQ(EstimatePlan(shape, model, plan)->step_s, bf16_s);
}

TEST(Estimate, PartsSumToTheStepAndNameTheirCause) {
  const ClusterModel cluster = Nodes(2, 4);
  Plan sharded;
  sharded.set_sharding(Plan::OPTIMIZER);
  for (const Split& split :
       {Split{.tp = 8}, Split{.cp = 8}, Split{.dp = 8}, Split{.pp = 8},
        Split{.tp = 2, .dp = 2, .pp = 2}}) {
    const Estimate estimate = Estimated(cluster, PlanOf(split, sharded));
    EXPECT_NEAR(estimate.parts.total(), estimate.step_s,
                1e-9 * estimate.step_s);
    EXPECT_EQ(estimate.parts.tp_s > 0, split.tp > 1);
    EXPECT_EQ(estimate.parts.cp_s > 0, split.cp > 1);
    EXPECT_EQ(estimate.parts.bubble_s > 1e-6, split.pp > 1);
    EXPECT_EQ(estimate.parts.dp_s > 0, split.dp > 1 || split.cp > 1);
    EXPECT_GT(estimate.parts.compute_s, 0);
    EXPECT_GT(estimate.parts.optimizer_s, 0);
  }
}

TEST(Estimate, ShardingMovesMemoryAndTraffic) {
  const ClusterModel cluster = Nodes(1, 8);
  int64_t last = 0;
  for (const Plan::Sharding sharding :
       {Plan::PARAMETERS, Plan::GRADIENTS, Plan::OPTIMIZER, Plan::REPLICATED}) {
    Plan plan;
    plan.set_sharding(sharding);
    const Estimate estimate = Estimated(cluster, PlanOf({.dp = 8}, plan));
    EXPECT_GT(estimate.peak[0].total(), last);
    last = estimate.peak[0].total();
    const int64_t parameters = estimate.peak[0].parameters;
    const int64_t whole = 2 * ModelParameters(Dit());
    EXPECT_EQ(parameters, sharding == Plan::PARAMETERS ? whole / 8 : whole);
  }
}

TEST(Estimate, RecomputationTradesTimeForMemory) {
  const ClusterModel cluster = Nodes(1, 1);
  double step = 0;
  int64_t activations = std::numeric_limits<int64_t>::max();
  for (const Plan::Recompute recompute :
       {Plan::NONE, Plan::SELECTIVE, Plan::FULL}) {
    Plan plan;
    plan.set_recompute(recompute);
    const Estimate estimate = Estimated(cluster, PlanOf({}, plan));
    EXPECT_GT(estimate.step_s, step);
    EXPECT_LT(estimate.peak[0].activations, activations);
    EXPECT_EQ(estimate.parts.recompute_s > 0, recompute != Plan::NONE);
    step = estimate.step_s;
    activations = estimate.peak[0].activations;
  }
}

// A slow node slows only the pipelines that cross it, but the step is theirs.
TEST(Estimate, TheSlowestReplicaSetsTheStep) {
  ClusterModel cluster = Nodes(4, 1);
  const Plan plan = PlanOf({.dp = 2, .pp = 2});
  const double even = Estimated(cluster, plan).step_s;
  cluster.nodes[3].slowdown = 1.5;
  const Estimate slow = Estimated(cluster, plan);
  EXPECT_GT(slow.step_s, 1.3 * even);
  EXPECT_EQ(slow.replica, 1);
}

// DiT-S/2 at 256 pixels: 580 GFLOPs a step of 16 samples, which an H100 would
// do in a millisecond if its kernels were large.
TEST(Estimate, AStepOfASmallModelIsNotAMatterOfMicroseconds) {
  const absl::StatusOr<Cluster> described =
      DescribeCluster({.device = "H100",
                       .nodes = 1,
                       .devices_per_node = 1,
                       .launch_s = kUsualLaunchSeconds,
                       .ramp_s = kUsualRampSeconds});
  ASSERT_TRUE(described.ok()) << described.status();
  const absl::StatusOr<ClusterModel> cluster = ResolveCluster(*described);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  ModelShape model;
  model.layers = 12;
  model.hidden = 384;
  model.mlp_hidden = 1536;
  model.heads = 6;
  model.tokens = 256;
  model.pieces = PiecesByFormulas();
  const auto step_s = [&](int64_t microbatch_size) {
    Plan plan;
    plan.set_microbatch_size(microbatch_size);
    const auto resolved = ResolvePlan(
        plan,
        {.world_size = 1, .global_batch = 16, .num_blocks = 12, .heads = 6});
    EXPECT_TRUE(resolved.ok()) << resolved.status();
    const auto estimate = EstimatePlan(model, *cluster, *resolved);
    EXPECT_TRUE(estimate.ok()) << estimate.status();
    return estimate.ok() ? estimate->step_s : 0;
  };
  EXPECT_GT(step_s(16), 2e-3);
  EXPECT_LT(step_s(16), 10e-3);
  // One sample at a time the same work takes many more kernels.
  EXPECT_GT(step_s(1), 5 * step_s(16));
}

// However many replicas meet in the network's cards.
TEST(Estimate, ASlowReplicaIsSeenAmongMany) {
  absl::StatusOr<Cluster> described = DescribeCluster(
      {.nodes = 3, .devices_per_node = 32, .network = "ethernet-100"});
  ASSERT_TRUE(described.ok()) << described.status();
  // Shared, but fast enough for gradients not to be all that counts.
  for (Cluster::Node& node : *described->mutable_nodes()) {
    node.set_card_bytes_per_s(1000 * node.card_bytes_per_s());
  }
  absl::StatusOr<ClusterModel> cluster = ResolveCluster(*described);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  // Replicas 16 to 47 have their second stage on node 2.
  const Plan plan = PlanOf({.dp = 48, .pp = 2});
  const double even = Estimated(*cluster, plan).step_s;
  cluster->nodes[2].slowdown = 3;
  const Estimate slow = Estimated(*cluster, plan);
  EXPECT_GT(slow.step_s, 1.4 * even);
  EXPECT_GE(slow.replica, 16);
}

// Sharded gradients are reduced in the precision that they have.
TEST(Estimate, GradientsOfFp64TakeTwiceTheTraffic) {
  const ClusterModel cluster = Nodes(8, 1);
  Plan sharded;
  sharded.set_sharding(Plan::GRADIENTS);
  const Plan plan = PlanOf({.dp = 8}, sharded);
  ModelShape model = Dit();
  const auto reductions = [&](int64_t gradient_bytes) {
    model.gradient_bytes = gradient_bytes;
    const auto estimate = EstimatePlan(model, cluster, plan);
    EXPECT_TRUE(estimate.ok()) << estimate.status();
    return estimate->parts.dp_s;
  };
  EXPECT_GT(reductions(8), 1.5 * reductions(4));
}

// Two stages on each of two nodes of one network card: their reductions cross
// the same cards, and the step pays for both.
TEST(Estimate, ReductionsOfStagesOnOneNodeQueueForItsCard) {
  const absl::StatusOr<Cluster> described = DescribeCluster(
      {.nodes = 2, .devices_per_node = 2, .network = "ethernet-25"});
  ASSERT_TRUE(described.ok()) << described.status();
  const absl::StatusOr<ClusterModel> resolved = ResolveCluster(*described);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  ClusterModel cluster = *resolved;
  Plan plan = PlanOf({.dp = 2, .pp = 2});
  plan.set_reduce_order(Plan::FAST);  // nothing but the cards counts
  plan.set_placement(1, 2);
  plan.set_placement(2, 1);
  plan.set_gradient_bucket_bytes(uint64_t{1} << 40);  // one bucket
  const auto reductions = [&](Estimate& estimate) {
    absl::StatusOr<Estimate> found = EstimatePlan(Dit(), cluster, plan);
    EXPECT_TRUE(found.ok()) << found.status();
    estimate = *std::move(found);
    std::vector<Interval> times;
    for (const int32_t pp : {0, 1}) {
      const std::vector<Instruction>& list = estimate.program.ranks[pp];
      for (size_t i = 0; i < list.size(); ++i) {
        if (list[i].kind == InstructionKind::kReduceGradients) {
          times.push_back(estimate.simulation.times[pp][i]);
        }
      }
    }
    return times;
  };
  Estimate estimate;
  const std::vector<Interval> queued = reductions(estimate);
  ASSERT_EQ(queued.size(), 2u);
  // The last stage is the first to have its gradients. Latencies are not the
  // card's.
  const double ring_s = queued[1].end_s - queued[1].start_s;
  EXPECT_NEAR(queued[0].start_s, queued[1].end_s, 1e-3 * ring_s);
  const double step_s = estimate.step_s;

  cluster.shares_network = false;
  const std::vector<Interval> alone = reductions(estimate);
  EXPECT_DOUBLE_EQ(alone[1].start_s, queued[1].start_s);
  EXPECT_LT(alone[0].start_s, alone[1].end_s);
  EXPECT_NEAR(step_s - estimate.step_s, queued[0].start_s - alone[0].start_s,
              1e-9);
}

// The runtime moves what tensor parallelism sums in backward while it computes
// weight gradients: only what takes longer than they do is to be seen.
TEST(Estimate, TensorParallelSumsHideBehindWeightGradients) {
  const ClusterModel cluster = Nodes(1, 2);
  const Plan plan = PlanOf({.tp = 2});
  ModelShape model = Dit();
  const absl::StatusOr<Estimate> hidden = EstimatePlan(model, cluster, plan);
  model.hides_collectives = false;
  const absl::StatusOr<Estimate> seen = EstimatePlan(model, cluster, plan);
  ASSERT_TRUE(hidden.ok() && seen.ok());
  // Two of a block's four sums are of backward.
  EXPECT_GT(hidden->parts.tp_s, 0.45 * seen->parts.tp_s);
  EXPECT_LT(hidden->parts.tp_s, 0.55 * seen->parts.tp_s);
  EXPECT_NEAR(seen->step_s - hidden->step_s,
              seen->parts.tp_s - hidden->parts.tp_s, 1e-9);
}

// Placements are sought by the largest message: one with all skips in it would
// keep stages together whose skips never leave a rank.
TEST(Estimate, TheLargestMessageHasNoSkipsThatStay) {
  ModelShape model = Dit();
  for (int32_t block = 0; block < 16; ++block) {
    model.block_runs.push_back({.kind = block, .count = 1});
    if (block < 8) model.skips.push_back({.made = block, .read = 15 - block});
  }
  model.pieces = [of_transformer = model.pieces](
                     const ModelShape& shape, const BlockSplit& split,
                     Plan::Recompute recompute, bool deferred) {
    ModelPieces pieces = of_transformer(shape, split, recompute, deferred);
    for (int32_t block = 0; block < 16; ++block) {
      PieceFigures& figures = pieces.blocks[block];
      figures.skip_bytes = figures.message_bytes;
      figures.message_bytes *= 1 + std::min(block, 16 - block);
    }
    return pieces;
  };
  Plan rest;
  rest.set_schedule(Plan::ZB_V);
  const ClusterModel cluster = Nodes(1, 8);
  const Plan all_stay = PlanOf({.dp = 4, .pp = 2}, rest);
  const int64_t alone = PlanCoster(model, cluster, all_stay).message_bytes();
  EXPECT_GT(alone, 0);
  const Plan none_stays = PlanOf({.dp = 4, .pp = 2});
  EXPECT_EQ(PlanCoster(model, cluster, none_stays).message_bytes(), 9 * alone);
}

TEST(Estimate, MeasuredBlocksOverrideTheArithmetic) {
  const ClusterModel cluster = Nodes(1, 1);
  ModelShape model = Dit();
  model.measured.push_back(
      {.device = "A100", .forward_s = 0.5, .backward_s = 1.0});
  const absl::StatusOr<Estimate> estimate =
      EstimatePlan(model, cluster, PlanOf({}));
  ASSERT_TRUE(estimate.ok()) << estimate.status();
  EXPECT_NEAR(estimate->step_s, 8 * 16 * 1.5, 0.5);
}

// Plans whose split was not measured are compared with those whose split was:
// what the measurement says of one says the same of the others.
TEST(Estimate, TheNearestMeasurementScalesOtherSplits) {
  const ClusterModel cluster = Nodes(1, 4);
  auto block = [&](const ModelShape& model, const Split& split) {
    Plan rest;
    rest.set_microbatch_size(1);
    const Plan plan = PlanOf(split, rest);
    return PlanCoster(model, cluster, plan)
        .ArithmeticOn(0)
        .Of(ModelPiece::kBlock);
  };
  const Split whole = {.dp = 4}, halves = {.tp = 2, .dp = 2};
  ModelShape model = Dit();
  const ArithmeticSeconds one = block(model, whole);
  const ArithmeticSeconds two = block(model, halves);
  model.measured = {{.device = "A100",
                     .forward_s = 3 * one.forward_s,
                     .backward_s = 2 * one.backward_s,
                     .backward_weight_s = one.backward_s}};
  EXPECT_NEAR(block(model, whole).forward_s, 3 * one.forward_s, 1e-12);
  EXPECT_NEAR(block(model, halves).forward_s, 3 * two.forward_s, 1e-12);
  EXPECT_NEAR(block(model, halves).backward_s, 2 * two.backward_s, 1e-12);
  EXPECT_NEAR(block(model, halves).backward_weight_s, two.backward_s, 1e-12);
  // The nearest one counts.
  model.measured.push_back({.device = "A100",
                            .tp = 4,
                            .forward_s = two.forward_s,
                            .backward_s = two.backward_s});
  model.measured.push_back({.device = "A100",
                            .tp = 2,
                            .forward_s = 5 * two.forward_s,
                            .backward_s = two.backward_s});
  EXPECT_NEAR(block(model, halves).forward_s, 5 * two.forward_s, 1e-12);
  EXPECT_NEAR(block(model, whole).forward_s, 3 * one.forward_s, 1e-12);
  // Other devices are not like this one.
  for (MeasuredPiece& piece : model.measured) piece.device = "B200";
  EXPECT_NEAR(block(model, halves).forward_s, two.forward_s, 1e-12);
}

}  // namespace
}  // namespace trireme
