// What hosts and their drives hold of plans with offload, and where the search
// turns where they are too small.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "scheduler/costs/plan_costs.h"
#include "scheduler/explain/tables.h"
#include "scheduler/explain/verdicts.h"
#include "scheduler/pieces/model_pieces.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.h"
#include "scheduler/search/candidate_costing.h"
#include "scheduler/search/candidate_plan.h"
#include "scheduler/search/offload_testing.h"
#include "scheduler/search/search.h"

namespace trireme {
namespace {

// The host holds weights and gradients, and the drive's rate is what updates go
// by; several processes share it.
TEST(OffloadHosts, OptimizerStatesOnADriveTakeItsTime) {
  PlannerInput input = Input();
  const auto estimate = [&](bool on_drive) {
    const auto cluster = ResolveCluster(input.cluster);
    auto plan = PlanOfCandidate(input.model, *cluster, 1, Offloaded(2, 1));
    EXPECT_TRUE(plan.ok()) << plan.status();
    if (on_drive) plan->mutable_offload()->mutable_nvme()->set_folder("/drive");
    return EstimatePlan(input.model, *cluster, *plan).value();
  };
  const Estimate at_home = estimate(false);
  for (const double rate : {0.0, 1e9, 1e12}) {
    input.cluster.mutable_nodes(0)->set_drive_bytes_per_s(rate);
    const Estimate on_drive = estimate(true);
    const double update_s =
        std::max(30 / kHostMemory, 12 / (rate > 0 ? rate : 2e9)) * kLayers *
        kBlock;
    const double hidden = (kLayers - 1) * BlockForwardSeconds(1);
    EXPECT_NEAR(on_drive.parts.optimizer_s, update_s - hidden, 0.02 * update_s)
        << rate;
    // Buckets of 32 MiB of gradients.
    const double expected =
        6 * kLayers * kBlock + 3 * 12 * (double{32 << 20} / 4);
    EXPECT_NEAR(static_cast<double>(on_drive.host_bytes[0]), expected,
                0.01 * expected);
  }
  EXPECT_NEAR(static_cast<double>(at_home.host_bytes[0]), 18 * kLayers * kBlock,
              0.01 * 18 * kLayers * kBlock);
}

TEST(OffloadHosts, WhatTheHostCannotHoldIsRefused) {
  PlannerInput input = Input();
  input.cluster.mutable_nodes(0)->set_host_memory_bytes(40'000'000'000);
  const absl::StatusOr<PlanReport> none = MakePlan(input);
  ASSERT_EQ(none.status().code(), absl::StatusCode::kResourceExhausted)
      << none.status();
  EXPECT_NE(none.status().message().find("over a host's memory by 8."),
            std::string::npos)
      << none.status();
  // Said of each candidate, too.
  input.model.layers = 8;
  input.cluster.mutable_nodes(0)->set_host_memory_bytes(10'000'000'000);
  const PlanReport report = Planned(input);
  const auto why = Why(input, report, {.offload = true});
  ASSERT_TRUE(why.ok()) << why.status();
  EXPECT_NE(why->find("over a host's memory by 6."), std::string::npos) << *why;
}

// The host holds 6 of a parameter's 18 bytes then.
TEST(OffloadHosts, WhereTheHostIsTooSmallADriveHoldsTheOptimizer) {
  PlannerInput input = Input();
  Cluster::Node& node = *input.cluster.mutable_nodes(0);
  node.set_host_memory_bytes(40'000'000'000);
  node.set_drive_folder("/mnt/drive");
  node.set_drive_bytes_per_s(1e9);
  const PlanReport report = Planned(input);
  ASSERT_FALSE(report.best.empty());
  const RankedPlan& best = report.best.front();
  EXPECT_EQ(best.plan.offload().nvme().folder(), "/mnt/drive");
  EXPECT_TRUE(best.candidate.drive);
  EXPECT_EQ(best.estimate.host_overflow.node, -1);
  const double states = 12 * Leaving(best.plan) * kBlock;
  EXPECT_NEAR(static_cast<double>(best.estimate.drive_bytes[0]), states,
              0.01 * states);
  EXPECT_NEAR(best.estimate.parts.optimizer_s, states / 1e9,
              0.05 * states / 1e9);
  // Not where others have filled it since.
  EXPECT_TRUE(Fits(best.estimate));
  ClusterModel full = report.cluster;
  full.nodes[0].drive_free_bytes = 1'000'000'000;
  const auto refused = EstimatePlan(input.model, full, best.plan);
  ASSERT_TRUE(refused.ok()) << refused.status();
  EXPECT_FALSE(Fits(*refused));
  const std::string text = OffloadText(input, best);
  EXPECT_NE(text.find("of optimizer states in /mnt/drive"), std::string::npos)
      << text;
  EXPECT_NE(ToText(best.candidate).find("optimizer states on a drive"),
            std::string::npos);
  // A host that is large enough needs none.
  node.set_host_memory_bytes(200'000'000'000);
  EXPECT_FALSE(Planned(input).best.front().plan.offload().has_nvme());
}

// Then 4 bytes of a parameter's are left to it, and the blocks that come next.
TEST(OffloadHosts, WhereTheHostIsTooSmallForWeightsTheDriveHasMost) {
  PlannerInput input = Input();
  Cluster::Node& node = *input.cluster.mutable_nodes(0);
  node.set_host_memory_bytes(14'000'000'000);
  node.set_drive_folder("/mnt/drive");
  node.set_drive_bytes_per_s(1e9);
  const PlanReport report = Planned(input);
  ASSERT_FALSE(report.best.empty());
  const RankedPlan& best = report.best.front();
  const uint32_t held = best.plan.offload().nvme().host_units();
  ASSERT_GE(held, 4u);
  ASSERT_LT(held, static_cast<uint32_t>(kLayers));
  EXPECT_EQ(best.candidate.host_units, static_cast<int32_t>(held));
  EXPECT_TRUE(Fits(best.estimate));
  const double leaving = Leaving(best.plan);
  const double beside = 2 * held * kBlock + 3 * 12 * (double{32 << 20} / 4);
  const double expected = 4 * leaving * kBlock + beside;
  EXPECT_NEAR(static_cast<double>(best.estimate.host_bytes[0]), expected,
              0.01 * expected);
  // One more would not fit where all leave.
  EXPECT_GT(4 * kLayers * kBlock + beside + 2 * kBlock, 14e9);
  const double on_drive = 14 * leaving * kBlock;
  EXPECT_NEAR(static_cast<double>(best.estimate.drive_bytes[0]), on_drive,
              0.01 * on_drive);
  const std::string text = OffloadText(input, best);
  EXPECT_NE(text.find("blocks and optimizer states (the host has"),
            std::string::npos)
      << text;
  EXPECT_NE(ToText(best.candidate).find("with all weights but for"),
            std::string::npos);
  // What is read for copies takes the drive's time.
  node.set_drive_bytes_per_s(0.1e9);
  const auto cluster = ResolveCluster(input.cluster);
  ASSERT_TRUE(cluster.ok());
  const auto copies_of = [&](uint32_t host_units) {
    Plan plan = best.plan;
    plan.mutable_offload()->mutable_nvme()->set_host_units(host_units);
    return EstimatePlan(input.model, *cluster, plan)->parts.copy_s;
  };
  EXPECT_LT(copies_of(kLayers), 0.5 * copies_of(held));
}

// Reads, copies, updates and writes of fewer than four do not hide.
TEST(OffloadHosts, AHostThatHoldsTwoBlocksIsEnough) {
  PlannerInput input = Input();
  Cluster::Node& node = *input.cluster.mutable_nodes(0);
  node.set_host_memory_bytes(11'700'000'000);
  node.set_drive_folder("/mnt/drive");
  node.set_drive_bytes_per_s(1e9);
  const PlanReport report = Planned(input);
  ASSERT_FALSE(report.best.empty());
  EXPECT_EQ(report.best.front().plan.offload().nvme().host_units(), 2u);
  EXPECT_TRUE(Fits(report.best.front().estimate));
}

// Blocks' inputs that do not fit the device take the place of blocks in the
// host's memory, which these would fill.
TEST(OffloadHosts, WhereInputsGoToTheHostMoreBlocksLieOnTheDrive) {
  PlannerInput input = Input();
  input.cluster.mutable_devices(0)->set_memory_bytes(3'500'000'000);
  Cluster::Node& node = *input.cluster.mutable_nodes(0);
  node.set_drive_folder("/mnt/drive");
  node.set_drive_bytes_per_s(1e9);
  // 40 GB hold weights and gradients beside the inputs.
  for (const double host_bytes : {14e9, 40e9}) {
    node.set_host_memory_bytes(host_bytes);
    const PlanReport report = Planned(input);
    ASSERT_FALSE(report.best.empty()) << host_bytes;
    const RankedPlan& best = report.best.front();
    EXPECT_TRUE(best.plan.offload().activations()) << host_bytes;
    EXPECT_TRUE(Fits(best.estimate)) << host_bytes;
    EXPECT_EQ(best.plan.offload().nvme().host_units() > 0, host_bytes < 20e9)
        << host_bytes;
  }
}

// Nor do they push the optimizer's states onto a drive that is full.
TEST(OffloadHosts, WhereInputsGoToTheHostAFullDriveHoldsNothing) {
  PlannerInput input = Input();
  input.cluster.mutable_devices(0)->set_memory_bytes(3'500'000'000);
  Cluster::Node& node = *input.cluster.mutable_nodes(0);
  // Of 18 bytes a parameter, but not of inputs beside them.
  node.set_host_memory_bytes(49'200'000'000);
  node.set_drive_folder("/mnt/drive");
  node.set_drive_bytes_per_s(1e9);
  node.set_drive_free_bytes(1'000'000'000);
  const PlanReport report = Planned(input);
  ASSERT_FALSE(report.best.empty());
  for (const RankedPlan& ranked : report.best) {
    EXPECT_TRUE(Fits(ranked.estimate)) << ToText(ranked.candidate);
  }
}

TEST(OffloadHosts, ADriveThatIsNotThereOrTooSmallIsSaid) {
  PlannerInput input = Input();
  Cluster::Node& node = *input.cluster.mutable_nodes(0);
  node.set_host_memory_bytes(40'000'000'000);
  const auto refusal = [&] { return MakePlan(input).status().ToString(); };
  EXPECT_NE(refusal().find("trireme profile --drive"), std::string::npos)
      << refusal();
  node.set_drive_folder("/mnt/drive");
  node.set_drive_free_bytes(1'000'000'000);
  EXPECT_NE(refusal().find("of the drive of desk, of which 1.0 GB are free"),
            std::string::npos)
      << refusal();
  node.clear_drive_free_bytes();
  node.set_host_memory_bytes(10'000'000'000);
  EXPECT_NE(refusal().find(
                "with optimizer and most blocks on its drive desk still needs"),
            std::string::npos)
      << refusal();
}

PlannerInput TwoDevices(int64_t layers) {
  PlannerInput input = Input();
  input.model.layers = layers;
  Cluster::Node& node = *input.cluster.mutable_nodes(0);
  node.set_count(2);
  node.mutable_link()->set_latency_s(1e-6);
  node.mutable_link()->set_bytes_per_s(100e9);
  return input;
}

// Stages on several devices stream beside one another, and share the host.
TEST(OffloadHosts, PipelineRanksShareTheHostsMemory) {
  PlannerInput input = TwoDevices(48);
  // Replicas that do not share blocks only take more of it.
  input.options.space.shardings = {Plan::REPLICATED};
  const PlanReport report = Planned(input);
  ASSERT_FALSE(report.best.empty());
  const RankedPlan& best = report.best.front();
  ASSERT_TRUE(best.plan.has_offload());
  EXPECT_EQ(best.plan.grid().tp() * best.plan.grid().pp(), 2u);
  // Each updates a half, at half of the rate, under its first forward.
  const double leaving = Leaving(best.plan);
  const double host = 30 * leaving * kBlock / kHostMemory;
  const double hidden =
      48 / 2 * BlockForwardSeconds(best.plan.microbatch_size());
  EXPECT_NEAR(best.estimate.parts.optimizer_s, host - hidden, 0.05 * host);
  EXPECT_NEAR(static_cast<double>(best.estimate.host_bytes[0]),
              18 * leaving * kBlock, 0.01 * 18 * leaving * kBlock);
}

// Each keeps its share of masters and moments, and of weights; of gradients
// where the plan says so.
TEST(OffloadHosts, ReplicasShareTheHostsMemory) {
  const PlannerInput input = TwoDevices(kLayers);
  for (const auto& [sharding, bytes] :
       {std::pair(Plan::PARAMETERS, 18), std::pair(Plan::GRADIENTS, 18),
        std::pair(Plan::OPTIMIZER, 18 + 4)}) {
    Candidate candidate =
        Offloaded(/*resident_units=*/2, /*microbatch_size=*/1);
    candidate.dp = 2;
    candidate.sharding = sharding;
    const Estimate estimate = Estimated(input, candidate);
    ASSERT_FALSE(estimate.host_bytes.empty());
    const double expected = bytes * kLayers * kBlock;
    EXPECT_NEAR(static_cast<double>(estimate.host_bytes[0]), expected,
                0.01 * expected)
        << Plan::Sharding_Name(sharding);
  }
}

// Gradients of experts are whole where they leave, and summed over the ranks
// that have the same ones: over a slow network that is most of what it takes.
TEST(OffloadHosts, ExpertsGradientsAreSummedBeforeTheyLeave) {
  PlannerInput input = Input();
  input.model.experts = 2;
  input.model.pieces = [source = input.model.pieces](
                           const ModelShape& model, const BlockSplit& split,
                           Plan::Recompute recompute, bool deferred) {
    ModelPieces pieces = source(model, split, recompute, deferred);
    for (PieceFigures& block : pieces.blocks) {
      block.expert_parameters = block.parameters / 2;
    }
    return pieces;
  };
  Cluster::Node& node = *input.cluster.mutable_nodes(0);
  node.set_count(4);
  node.mutable_link()->set_latency_s(1e-6);
  node.mutable_link()->set_bytes_per_s(1e9);
  Candidate candidate = Offloaded(/*resident_units=*/2, /*microbatch_size=*/4);
  candidate.dp = 4;
  candidate.ep = 2;
  const auto cluster = ResolveCluster(input.cluster);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  for (const Plan::Sharding sharding : {Plan::OPTIMIZER, Plan::GRADIENTS}) {
    candidate.sharding = sharding;
    const auto plan =
        PlanOfCandidate(input.model, *cluster, input.global_batch, candidate);
    ASSERT_TRUE(plan.ok()) << plan.status();
    const PlanCoster coster(input.model, *cluster, *plan);
    const StageRings& rings = coster.rings()->front();
    ASSERT_EQ(rings.experts.slowest.members, 2);
    const double half = 4 * kBlock / 2;
    const double expected = (half + half / 4) / kToHost +
                            rings.shards.slowest.ReduceScatter(half) +
                            rings.experts.slowest.AllReduce(half);
    EXPECT_NEAR(coster.CostsOf(0).cost.chunks[0][0].units[1].save_gradients_s,
                expected, 0.01 * expected)
        << Plan::Sharding_Name(sharding);
  }
  // Blocks that stay sum theirs once a step: their other gradients go to the
  // shards of PARAMETERS with each backward.
  candidate.sharding = Plan::PARAMETERS;
  for (const int32_t stay : {0, 3}) {
    candidate.device_blocks = stay;
    const auto plan =
        PlanOfCandidate(input.model, *cluster, input.global_batch, candidate);
    ASSERT_TRUE(plan.ok()) << plan.status();
    const PlanCoster coster(input.model, *cluster, *plan);
    const PlanCosts costs = coster.CostsOf(0);
    const double expected = coster.rings()->front().experts.slowest.AllReduce(
                                stay * 4 * kBlock / 2 / costs.buckets[0]) *
                            (stay > 0 ? 1 : 0);
    EXPECT_NEAR(costs.cost.chunks[0][0].reduce_s, expected, 0.01 * expected)
        << stay;
  }
}

// That a block stays on its devices spares no network what goes to shards.
TEST(OffloadHosts, GradientsOfBlocksThatStayAreSummed) {
  const PlannerInput input = TwoDevices(kLayers);
  const auto cluster = ResolveCluster(input.cluster);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  Candidate candidate = Offloaded(/*resident_units=*/2, /*microbatch_size=*/1);
  candidate.dp = 2;
  candidate.device_blocks = 3;
  for (const Plan::Sharding sharding : {Plan::PARAMETERS, Plan::GRADIENTS}) {
    candidate.sharding = sharding;
    const auto plan =
        PlanOfCandidate(input.model, *cluster, input.global_batch, candidate);
    ASSERT_TRUE(plan.ok()) << plan.status();
    const PlanCoster coster(input.model, *cluster, *plan);
    const double sum =
        coster.rings()->front().shards.slowest.ReduceScatter(4 * kBlock);
    ASSERT_GT(sum, 0);
    const ChunkCost chunk = coster.CostsOf(0).cost.chunks[0][0];
    // Those of GRADIENTS go with the stage's others.
    const double expected = sharding == Plan::PARAMETERS ? sum : 0;
    EXPECT_NEAR(chunk.units[2].save_gradients_s, expected, 0.01 * sum);
    EXPECT_GT(chunk.units[3].save_gradients_s, sum);
  }
}

// Of two hosts one is small: it holds the smaller stage, whichever comes first
// in the cluster's file.
TEST(OffloadHosts, TheSmallerStageLiesAtTheSmallerHost) {
  for (const int small : {0, 1}) {
    PlannerInput input = Input();
    input.model.layers = 3;
    input.options.space.offload = OffloadSearch::kOnly;
    Cluster::Node& other = *input.cluster.add_nodes();
    other = input.cluster.nodes(0);
    other.set_name("other");
    input.cluster.mutable_default_link()->set_latency_s(1e-6);
    input.cluster.mutable_default_link()->set_bytes_per_s(1e12);
    // One block and no second one.
    input.cluster.mutable_nodes(small)->set_host_memory_bytes(
        static_cast<uint64_t>(1.5 * 18 * kBlock));
    const PlanReport report = Planned(input);
    ASSERT_FALSE(report.best.empty()) << small;
    const RankedPlan& best = report.best.front();
    EXPECT_EQ(best.plan.grid().pp(), 2U);
    EXPECT_TRUE(Fits(best.estimate));
    EXPECT_EQ(best.candidate.verdict, VerdictCode::kChosen);
    EXPECT_LT(best.estimate.host_bytes[small],
              best.estimate.host_bytes[1 - small]);
  }
}

// Which stage lies at a slow host is the placement's to choose: a bound that
// takes the first choice for granted would refuse what is faster.
TEST(OffloadHosts, NoPlacementIsFasterThanTheBoundWhereHostsAreUnlike) {
  for (const int slow : {0, 1}) {
    PlannerInput input = Input();
    input.model.layers = 3;
    input.global_batch = 1;
    Cluster::Node& other = *input.cluster.add_nodes();
    other = input.cluster.nodes(0);
    other.set_name("other");
    input.cluster.mutable_nodes(slow)->set_host_memory_bytes_per_s(kHostMemory /
                                                                   100);
    input.cluster.mutable_default_link()->set_latency_s(1e-6);
    input.cluster.mutable_default_link()->set_bytes_per_s(1e12);
    const auto cluster = ResolveCluster(input.cluster);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    Candidate candidate = Offloaded(/*resident_units=*/1, 1);
    candidate.pp = 2;
    const auto likely =
        CandidateCosting(input.model, *cluster, 1).Cost(/*index=*/0, candidate);
    ASSERT_TRUE(likely.ok()) << likely.status();
    EXPECT_GT(candidate.step_s, 0);
    for (const std::vector<int32_t>& physical :
         {std::vector<int32_t>{0, 1}, std::vector<int32_t>{1, 0}}) {
      const auto plan =
          PlanOfCandidate(input.model, *cluster, 1, candidate, physical);
      ASSERT_TRUE(plan.ok()) << plan.status();
      const auto estimate = EstimatePlan(input.model, *cluster, *plan);
      ASSERT_TRUE(estimate.ok()) << estimate.status();
      EXPECT_LE(candidate.step_s, estimate->step_s * (1 + 1e-9)) << slow;
    }
  }
}

}  // namespace
}  // namespace trireme
