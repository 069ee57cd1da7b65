// What `trireme profile` measures of GPUs, emulated ones here.

#include <memory>
#include <mutex>
#include <string>

#include "gtest/gtest.h"
#include "runtime/comm/nccl/nccl_world.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/log.h"
#include "runtime/device/compute_device.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/pieces/measured_times.h"
#include "trainer/planning/model_shape_of.h"
#include "trainer/profile/piece_times.h"
#include "trainer/profile/profile_cluster.h"
#include "trainer/profile/tiny_job_testing.h"

namespace trireme {
namespace {

constexpr int64_t kMemory = int64_t{256} << 20;
constexpr int kRanks = 2;

ComputeDevice Gpu() {
  const auto device = ComputeDevice::Choose("cuda:0", /*local_rank=*/0, kRanks);
  CHECK(device.ok()) << device.status();
  return *device;
}

// A cluster of GPUs that was measured is one that the planner takes, without a
// figure that it would have to guess.
TEST(CudaProfile, MakesAClusterOfWhatGpusReach) {
  const TrainingSetup job = TinyJob({.global_batch = 1});
  absl::StatusOr<ClusterProfile> found = ClusterProfile();
  std::mutex mutex;
  RunThreadRanks(kRanks, [&](CommunicatorFactory& threads, int rank) {
    const ComputeDevice kind = Gpu();
    const std::unique_ptr<Device> device = kind.Make(kMemory, {});
    const auto world = MakeNcclWorld(threads, kind.gpu(), {});
    auto profile = ProfileCluster(
        {.host = "a",
         .computes_on = kind,
         .memory_bytes = kMemory,
         .links = {.large_bytes = 1 << 12,
                   .largest_bytes = 1 << 14,
                   .repetitions = 1},
         .collectives = {.large_bytes = 1 << 14, .repetitions = 1},
         .repetitions = 1,
         .product_side = 128,
         .elementwise_bytes = 1 << 16,
         .job = &job,
         .piece_repetitions = 1},
        *device, *world);
    const std::lock_guard lock(mutex);
    if (rank == 0) found = std::move(profile);
  });
  ASSERT_TRUE(found.ok()) << found.status();
  const Cluster& measured = found->cluster;
  ASSERT_EQ(measured.devices_size(), 1);
  const Cluster::Device& device = measured.devices(0);
  EXPECT_TRUE(device.name().ends_with(" of a")) << device.name();
  EXPECT_FALSE(device.name().starts_with("cpu")) << device.name();
  for (const double rate :
       {device.achieved_bf16_flops(), device.achieved_fp32_flops(),
        device.achieved_fp64_flops(), device.achieved_tf32_flops(),
        device.memory_bytes_per_s(), device.to_device_bytes_per_s(),
        device.to_host_bytes_per_s(), device.launch_s(),
        measured.nodes(0).host_memory_bytes_per_s()}) {
    EXPECT_GT(rate, 0) << device.DebugString();
  }
  EXPECT_EQ(device.achieved_fp8_flops() > 0, Gpu().multiplies_float8());
  // All that the arena may have is the planner's to give.
  EXPECT_EQ(device.memory_bytes(), kMemory);
  EXPECT_EQ(device.reserved_bytes(), 0);
  EXPECT_FALSE(measured.collective_times().empty());

  const auto cluster = ResolveCluster(measured);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  ModelShape shape = ModelShapeOf(job);
  EXPECT_EQ(UseMeasuredTimes(*cluster, shape),
            static_cast<int64_t>(PiecesIn(shape).size() *
                                 SplitsToTime(job, kRanks, kRanks).size()));
}

// A stream is behind the host: by the host's clock a microbatch of eight takes
// as long to give as one.
TEST(CudaProfile, APieceTakesWhatTheGpuNeeds) {
  const std::unique_ptr<Device> device = Gpu().Make(kMemory, {});
  const auto seconds_of = [&](int samples) {
    const auto seconds =
        TimePiece(TinyJob(), {.microbatch_size = samples}, ModelPiece::kBlock,
                  /*repetitions=*/1, *device);
    CHECK(seconds.ok()) << seconds.status();
    return *seconds;
  };
  const PieceSeconds one = seconds_of(1), eight = seconds_of(8);
  EXPECT_GT(eight.forward_s, 2 * one.forward_s);
  EXPECT_GT(eight.backward_s, 2 * one.backward_s);
}

}  // namespace
}  // namespace trireme
