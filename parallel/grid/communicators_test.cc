#include "parallel/grid/communicators.h"

#include <initializer_list>
#include <mutex>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/comm/dry.h"
#include "runtime/comm/single.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

ProcessGrid Grid(const GridSizes& sizes, int world_rank) {
  auto grid = ProcessGrid::Create(sizes, {}, world_rank);
  EXPECT_TRUE(grid.ok()) << grid.status();
  return *grid;
}

float Sum(Communicator& group, Device& device, float value) {
  const Tensor data =
      Tensor::FromValues<float>(device, {1}, std::vector{value});
  group.AllReduce(data, ReduceOp::kSum, "sum").Wait();
  return data.data<float>()[0];
}

// A purpose that is wired to the wrong ranks gives wrong gradients silently.
TEST(CommunicatorsTest, EveryPurposeReachesItsRanks) {
  RunThreadRanks(8, [](CommunicatorFactory& factory, int rank) {
    const ProcessGrid grid = Grid({.tp = 2, .dp = 2, .pp = 2}, rank);
    Communicators communicators(factory, grid, {.shard_group = 1});
    CpuDevice device(1 << 20);
    const float value = static_cast<float>(1 << rank);
    // Ranks as bits: tp is bit 0 of a rank, dp bit 1, pp bit 2.
    const int base = rank & ~1;
    EXPECT_EQ(Sum(communicators.ForAxis(Axis::kTensor), device, value),
              static_cast<float>((1 << base) + (2 << base)));
    EXPECT_EQ(Sum(communicators.TensorBackward(), device, value),
              static_cast<float>((1 << base) + (2 << base)));
    EXPECT_EQ(communicators.Statistics(Cause::kTensor).calls, 2);
    const auto set = [](std::initializer_list<Axis> axes) {
      AxisSet result;
      for (const Axis axis : axes) result.insert(axis);
      return result;
    };
    EXPECT_EQ(
        Sum(communicators.ForGradients(set({Axis::kData})), device, value),
        static_cast<float>((1 << rank) + (1 << (rank ^ 2))));
    EXPECT_EQ(Sum(communicators.ForGradients(set({Axis::kTensor, Axis::kData})),
                  device, value),
              rank & 4 ? 0b11110000 : 0b00001111);
    // Groups of one: the replicas are all of dp.
    EXPECT_EQ(communicators.ShardGroup().size(), 1);
    EXPECT_EQ(Sum(communicators.ForReplicas(set({})), device, value),
              static_cast<float>((1 << rank) + (1 << (rank ^ 2))));
    EXPECT_EQ(Sum(communicators.model_shards(), device, value),
              rank & 2 ? 0b11001100 : 0b00110011);
    EXPECT_EQ(Sum(communicators.world(), device, value), 255);
    EXPECT_EQ(communicators.ForAxis(Axis::kContext).size(), 1);
    // Sums of four bytes over dp, over tp and dp, and over copies of shards.
    EXPECT_EQ(communicators.Statistics(Cause::kGradients).sent_bytes,
              4 + 6 + 4);
    double loss = value;
    communicators.control().Sum(std::span<double>(&loss, 1), "loss");
    EXPECT_EQ(loss, 255);
  });
}

// Shards lie in runs of the dp coordinate; equal shards, across the runs, are
// replicas of each other.
TEST(CommunicatorsTest, HybridShardsAndReplicasCutDataParallelism) {
  RunThreadRanks(8, [](CommunicatorFactory& factory, int rank) {
    // tp is bit 0 of a rank, dp bits 1 and 2.
    const ProcessGrid grid = Grid({.tp = 2, .dp = 4}, rank);
    Communicators communicators(factory, grid, {.shard_group = 2});
    CpuDevice device(1 << 20);
    const float value = static_cast<float>(1 << rank);
    EXPECT_EQ(Sum(communicators.ShardGroup(), device, value),
              static_cast<float>((1 << rank) + (1 << (rank ^ 2))));
    AxisSet axes;
    EXPECT_EQ(Sum(communicators.ForReplicas(axes), device, value),
              static_cast<float>((1 << rank) + (1 << (rank ^ 4))));
    axes.insert(Axis::kTensor);
    EXPECT_EQ(Sum(communicators.ForReplicas(axes), device, value),
              rank & 2 ? 0b11001100 : 0b00110011);
    EXPECT_EQ(Sum(communicators.model_shards(), device, value),
              rank & 4 ? 0b11110000 : 0b00001111);
  });
}

// Pairs of stages made in another order on some rank would hang the start.
TEST(CommunicatorsTest, StagesTalkToBothNeighboursInBothDirections) {
  for (const int stages : {2, 3, 4}) {
    RunThreadRanks(stages, [&](CommunicatorFactory& factory, int rank) {
      const ProcessGrid grid = Grid({.pp = stages}, rank);
      Communicators communicators(factory, grid);
      CpuDevice device(1 << 20);
      std::vector<Event> events;
      std::vector<std::pair<int, Tensor>> received;
      for (const int step : {1, -1}) {
        if (stages == 2 && step == -1) continue;
        const int peer = (rank + step + stages) % stages;
        const Tensor sent = Tensor::FromValues<float>(
            device, {1}, std::vector{100.0f * rank + peer});
        events.push_back(communicators.PipelineSend(peer).Send(
            sent, Communicators::kReceiver, 0, "activation"));
        received.emplace_back(peer,
                              Tensor::Zeros(device, {1}, DType::kFloat32));
        events.push_back(communicators.PipelineReceive(peer).Receive(
            received.back().second, Communicators::kSender, 0, "activation"));
      }
      for (Event& event : events) event.Wait();
      for (const auto& [peer, tensor] : received) {
        EXPECT_EQ(tensor.data<float>()[0], 100.0f * peer + rank);
      }
    });
  }
}

// Predictions for a large cluster must not need its ranks.
TEST(CommunicatorsTest, AnyRankOfALargeWorldCanBeMadeDry) {
  DryWorld world(777, 1024);
  Communicators communicators(world, Grid({.tp = 8, .dp = 16, .pp = 8}, 777));
  CpuDevice device(1 << 30, CpuDevice::Mode::kDry);
  const Tensor data = Tensor::Empty(device, {8, 100}, DType::kFloat32);
  communicators.ForAxis(Axis::kTensor)
      .AllReduce(data, ReduceOp::kSum, "sum")
      .Wait();
  EXPECT_EQ(communicators.Statistics(Cause::kTensor).sent_bytes,
            2 * 3200 * 7 / 8);
  // Of values that ranks agree on, there are only this rank's.
  double loss = 3;
  communicators.control().Sum(std::span<double>(&loss, 1), "loss");
  EXPECT_EQ(loss, 3);
}

// Ignored, a sum over experts would be taken over the wrong ranks.
TEST(CommunicatorsDeathTest, NoGroupIsMadeUpForAnotherAxis) {
  const ProcessGrid grid;
  SingleWorld world;
  Communicators communicators(world, grid);
  AxisSet axes;
  axes.insert(Axis::kExpert);
  EXPECT_DEATH(communicators.ForGradients(axes),
               "no group sums gradients over ep");
  EXPECT_DEATH(communicators.ForAxis(Axis::kData),
               "no group moves activations over dp");
}

}  // namespace
}  // namespace trireme
