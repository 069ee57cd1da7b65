#include "trainer/profile/profile_cluster.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <tuple>

#include "gtest/gtest.h"
#include "models/swin/swin_config.h"
#include "models/swin/swin_family.h"
#include "parallel/grid/communicators.h"
#include "parallel/grid/process_grid.h"
#include "runtime/comm/stand_in.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/device/cpu_device.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/costs/plan_costs.h"
#include "scheduler/pieces/measured_times.h"
#include "scheduler/plan/plan.h"
#include "trainer/job/job.h"
#include "trainer/planning/model_shape_of.h"
#include "trainer/profile/piece_times.h"
#include "trainer/profile/tiny_job_testing.h"

namespace trireme {
namespace {

// Of the first rank. What differs by so much more than the device keeps for
// itself is not alike, however noisy the measurement.
constexpr int64_t kMemory = int64_t{1} << 30;

absl::StatusOr<ClusterProfile> ProfileOn(const std::vector<std::string>& hosts,
                                         const TrainingSetup* job = nullptr) {
  absl::StatusOr<ClusterProfile> result = ClusterProfile();
  std::mutex mutex;
  RunThreadRanks(static_cast<int>(hosts.size()),
                 [&](CommunicatorFactory& factory, int rank) {
                   CpuDevice device(int64_t{1} << 30);
                   auto profile =
                       ProfileCluster({.host = hosts[rank],
                                       .memory_bytes = kMemory * (rank + 1),
                                       .links = {.large_bytes = 1 << 16,
                                                 .largest_bytes = 1 << 20,
                                                 .repetitions = 3},
                                       .collectives = {.repetitions = 3},
                                       .repetitions = 3,
                                       .product_side = 256,
                                       .elementwise_bytes = 1 << 20,
                                       .job = job,
                                       .piece_repetitions = 3},
                                      device, factory);
                   const std::lock_guard lock(mutex);
                   if (rank == 0) result = std::move(profile);
                 });
  return result;
}

TEST(ProfileCluster, MakesAClusterThatThePlannerTakes) {
  const auto profile = ProfileOn({"a", "a", "b"});
  ASSERT_TRUE(profile.ok()) << profile.status();
  const auto cluster = ResolveCluster(profile->cluster);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  ASSERT_EQ(cluster->num_nodes(), 2);
  EXPECT_EQ(cluster->nodes[0].count, 2);
  EXPECT_EQ(cluster->nodes[1].count, 1);
  EXPECT_EQ(cluster->nodes[1].name, "b");
  // The smallest node has one rank: groups of one from each node.
  ASSERT_EQ(cluster->collective_times.size(), kCollectiveKinds.size());
  for (const MeasuredCollective& collective : cluster->collective_times) {
    EXPECT_EQ(collective.nodes, 2);
    EXPECT_EQ(collective.ranks_per_node, 1);
    EXPECT_GT(collective.seconds.s_per_byte, 0);
    EXPECT_GT(collective.by_links.s_per_byte, 0);
  }
  // The rank with least memory decides.
  EXPECT_EQ(cluster->DeviceOfNode(0).memory_bytes, kMemory);
  EXPECT_EQ(cluster->DeviceOfNode(1).memory_bytes, 3 * kMemory);
  EXPECT_GT(profile->cluster.devices(0).reserved_bytes(), 1 << 20);
  EXPECT_GT(cluster->DeviceOfNode(0).to_device_bytes_per_s, 0);
  EXPECT_GT(cluster->DeviceOfNode(0).to_host_bytes_per_s, 0);
  // As measured: to the planner they are alike within the measurement's spread.
  const Cluster& measured = profile->cluster;
  EXPECT_DOUBLE_EQ(measured.nodes(1).host_memory_bytes_per_s(),
                   measured.devices(1).memory_bytes_per_s());
  // Two ranks share the first host's memory; its devices have the faster one's
  // rate.
  EXPECT_GT(measured.nodes(0).host_memory_bytes_per_s(),
            measured.devices(0).memory_bytes_per_s());
  EXPECT_LE(measured.nodes(0).host_memory_bytes_per_s(),
            2 * measured.devices(0).memory_bytes_per_s());
  EXPECT_EQ(profile->cluster.links_size(), 2);
  for (const Cluster::NodeLink& link : profile->cluster.links()) {
    EXPECT_GT(link.link().bytes_per_s(), 0);
    EXPECT_GE(link.link().latency_s(), 0);
  }
}

// Plans of a model whose tokens lie in windows have neither: times of them
// would take long, and be of nothing.
TEST(ProfileCluster, TimesNoSplitThatIsRefused) {
  Swin swin;
  swin.set_preset(Swin::TINY);
  for (const uint32_t heads : {2, 4}) {
    Swin::Stage& stage = *swin.add_stages();
    stage.set_blocks(1);
    stage.set_heads(heads);
  }
  const auto config = ResolveSwin(swin, /*channels=*/1, /*side=*/28,
                                  /*classes=*/10);
  ASSERT_TRUE(config.ok()) << config.status();
  TrainingSetup job;
  job.family = MakeSwinFamily(*config);
  job.global_batch = 1;
  EXPECT_EQ(SplitsToTime(job, 4, 2), (std::vector<PieceSplit>{{}, {.tp = 2}}));
}

// What a job's plans are chosen by: a split without times would be guessed.
TEST(ProfileCluster, TimesEveryPieceOfAJobForEverySplit) {
  const TrainingSetup job = TinyJob();
  const auto profile = ProfileOn({"a", "a", "b", "b"}, &job);
  ASSERT_TRUE(profile.ok()) << profile.status();
  const auto cluster = ResolveCluster(profile->cluster);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  EXPECT_GT(cluster->devices[0].achieved_fp64_flops, 0);
  ModelShape shape = ModelShapeOf(job);
  const std::vector<PieceSplit> splits = SplitsToTime(job, 4, 2);
  EXPECT_TRUE(std::count(
      splits.begin(), splits.end(),
      PieceSplit{.tp = 2, .sequence_parallel = true, .microbatch_size = 8}));
  EXPECT_TRUE(std::count(splits.begin(), splits.end(), PieceSplit{.cp = 4}));
  EXPECT_FALSE(std::count(splits.begin(), splits.end(), PieceSplit{.tp = 4}));
  // Whatever the number of tokens: sequences are padded.
  EXPECT_EQ(SplitsToTime(TinyJob({.side = 14}), 4, 2), splits);
  // Of both nodes.
  EXPECT_EQ(UseMeasuredTimes(*cluster, shape),
            static_cast<int64_t>(2 * PiecesIn(shape).size() * splits.size()));
  for (const MeasuredPiece& piece : shape.measured) {
    EXPECT_GT(piece.forward_s, 0);
    EXPECT_GT(piece.backward_s, 0);
    EXPECT_GT(piece.backward_weight_s, 0);
    EXPECT_LE(piece.backward_weight_s, piece.backward_s);
  }
  ASSERT_EQ(profile->cluster.model_times_size(), 1);
  std::set<std::tuple<std::string, int, int, int, bool, int>> timed;
  for (const Cluster::PieceTime& time :
       profile->cluster.model_times(0).pieces()) {
    timed.emplace(time.device(), time.piece(), time.tp(), time.cp(),
                  time.sequence_parallel(), time.microbatch_size());
  }
  EXPECT_EQ(timed.size(), 2 * PiecesIn(shape).size() * splits.size());
  // Another model's times are of no use.
  shape.mlp_hidden *= 2;
  EXPECT_EQ(UseMeasuredTimes(*cluster, shape), 0);
}

// What was timed is what a rank with that split holds: a block is the largest
// piece, more samples are more, and ranks divide it.
TEST(ProfileCluster, APieceIsTimedInItsOwnSize) {
  const auto bytes = [](ModelPiece piece, const PieceSplit& split) {
    CpuDevice device(int64_t{1} << 30);
    const auto seconds = TimePiece(TinyJob(), split, piece, 1, device);
    EXPECT_TRUE(seconds.ok()) << seconds.status();
    return device.Statistics().peak_bytes;
  };
  const int64_t block = bytes(ModelPiece::kBlock, {.microbatch_size = 8});
  for (const ModelPiece end : {ModelPiece::kEmbedding, ModelPiece::kHead}) {
    const int64_t eight = bytes(end, {.microbatch_size = 8});
    EXPECT_GT(eight, bytes(end, {}));
    EXPECT_GT(block, eight);
  }
  EXPECT_GT(block, bytes(ModelPiece::kBlock, {}));
  const int64_t tensor =
      bytes(ModelPiece::kBlock, {.tp = 2, .microbatch_size = 8});
  EXPECT_GT(block, tensor);
  EXPECT_GT(tensor,
            bytes(ModelPiece::kBlock,
                  {.tp = 2, .sequence_parallel = true, .microbatch_size = 8}));
  EXPECT_GT(block, bytes(ModelPiece::kBlock, {.cp = 2, .microbatch_size = 8}));
}

TEST(ProfileCluster, WhatDoesNotFitADeviceIsNotTimed) {
  CpuDevice device(int64_t{1} << 20);
  const auto fits = TimePiece(TinyJob(), {}, ModelPiece::kEmbedding, 1, device);
  EXPECT_TRUE(fits.ok()) << fits.status();
  const auto too_large = TimePiece(TinyJob(), {.microbatch_size = 8},
                                   ModelPiece::kBlock, 1, device);
  EXPECT_EQ(too_large.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(device.Statistics().current_bytes, 0);
}

TEST(ProfileCluster, CollectivesAreMeasuredInGroupsOfEveryShape) {
  const std::vector<int> counts = {4, 6, 4};
  const std::vector<GroupShape> shapes = GroupShapes(counts);
  // Nodes 1, 2, 3 by ranks 1, 2, 4, without the group of one.
  EXPECT_EQ(shapes.size(), 8u);
  EXPECT_EQ(GroupsOf({.nodes = 1, .ranks_per_node = 2}, counts).size(), 7u);
  EXPECT_EQ(GroupsOf({.nodes = 2, .ranks_per_node = 2}, counts),
            (std::vector<std::vector<int>>{{0, 1, 4, 5}, {2, 3, 6, 7}}));
  EXPECT_EQ(GroupsOf({.nodes = 3, .ranks_per_node = 4}, counts),
            (std::vector<std::vector<int>>{
                {0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13}}));
}

class CountingWorld final : public CommunicatorFactory {
 public:
  explicit CountingWorld(int size) : inner_(0, size) {}
  int world_rank() const override { return inner_.world_rank(); }
  int world_size() const override { return inner_.world_size(); }
  int64_t count() const { return count_; }
  using CommunicatorFactory::Create;
  std::unique_ptr<Communicator> Create(std::span<const int> ranks,
                                       std::string_view name,
                                       Progress progress) override {
    count_ += ranks.size() > 1 ? 1 : 0;
    return inner_.Create(ranks, name, progress);
  }

 private:
  StandInWorld inner_;
  int64_t count_ = 0;
};

// The planner's memory check takes so many off.
TEST(ProfileCluster, CountsTheCommunicatorsOfAPlan) {
  struct Case {
    uint32_t tp = 1, cp = 1, dp = 1, pp = 1, ulysses = 1, shard_group = 1;
  };
  for (const Case& test :
       {Case{}, Case{.tp = 2}, Case{.cp = 4, .ulysses = 2}, Case{.dp = 4},
        Case{.dp = 4, .shard_group = 4}, Case{.dp = 4, .shard_group = 2},
        Case{.pp = 2}, Case{.pp = 4},
        Case{.tp = 2, .cp = 2, .dp = 4, .pp = 3, .shard_group = 2}}) {
    Plan plan;
    plan.mutable_grid()->set_tp(test.tp);
    plan.mutable_grid()->set_cp(test.cp);
    plan.mutable_grid()->set_dp(test.dp);
    plan.mutable_grid()->set_pp(test.pp);
    plan.set_ulysses(test.ulysses);
    plan.set_sharding(test.shard_group > 1 ? Plan::OPTIMIZER
                                           : Plan::REPLICATED);
    plan.set_shard_group(test.shard_group);
    CountingWorld world(static_cast<int>(GridSize(plan.grid())));
    const auto grid = ProcessGrid::Create({.tp = static_cast<int>(test.tp),
                                           .cp = static_cast<int>(test.cp),
                                           .dp = static_cast<int>(test.dp),
                                           .pp = static_cast<int>(test.pp)},
                                          {}, 0);
    ASSERT_TRUE(grid.ok()) << grid.status();
    const Communicators communicators(
        world, *grid,
        {.ulysses = static_cast<int>(test.ulysses),
         .shard_group = static_cast<int>(test.shard_group)});
    EXPECT_EQ(CommunicatorsOf(plan), world.count()) << plan.ShortDebugString();
  }
}

TEST(ProfileCluster, RefusesMachinesWhoseRanksAreNotInARow) {
  const auto profile = ProfileOn({"a", "b", "a"});
  EXPECT_EQ(profile.status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace trireme
