// Collectives of GPUs by NCCL, an emulated one here: the bits of the same
// collectives of the host's tensors, whatever the order in which streams go;
// and a rank that does not come is told of.

#include <atomic>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/comm/nccl/nccl_world.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/cuda/gpus.h"
#include "runtime/device/cuda/orders_testing.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/ops_testing.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

using Values = std::vector<double>;
using Body =
    std::function<void(CommunicatorFactory& world, Device& gpu, int rank)>;

// Each rank on a GPU of its own, as far as it can tell.
void RunRanks(int ranks, const Body& body,
              std::vector<HangWatch> watches = {}) {
  watches.resize(ranks);
  RunThreadRanks(ranks, [&](CommunicatorFactory& threads, int rank) {
    const std::unique_ptr<Device> gpu =
        MakeCudaDevice(0, kPlenty, CudaDevice::Memory::kPoisoned);
    const auto world = MakeNcclWorld(threads, 0, watches[rank]);
    body(*world, *gpu, rank);
  });
}

std::unique_ptr<Communicator> All(CommunicatorFactory& world,
                                  std::string_view name = "world") {
  std::vector<int> ranks(world.world_size());
  std::iota(ranks.begin(), ranks.end(), 0);
  return world.Create(ranks, name);
}

class NcclTest : public testing::TestWithParam<std::tuple<int, int>> {
 protected:
  NcclTest() { UseOrder(std::get<1>(GetParam())); }
  static int Ranks() { return std::get<0>(GetParam()); }
};

INSTANTIATE_TEST_SUITE_P(
    RanksAndOrders, NcclTest,
    testing::Combine(testing::Values(2, 3, 4),
                     testing::Values(kLazyOrder, 1, 3, 4)),
    [](const testing::TestParamInfo<std::tuple<int, int>>& info) {
      const int order = std::get<1>(info.param);
      return std::to_string(std::get<0>(info.param)) + "_" +
             (order == kLazyOrder ? "lazy" : std::to_string(order));
    });

// What `run` gives of tensors of the host and of the GPU.
void ExpectTheHostsBits(
    CommunicatorFactory& world, Device& gpu,
    const std::function<Tensor(Communicator&, Device&)>& run) {
  const auto group = All(world);
  CpuDevice host(kPlenty);
  const Values expected = Doubles(run(*group, host));
  EXPECT_TRUE(Doubles(run(*group, gpu)) == expected);
}

// Sizes: nothing, fewer elements than ranks, uneven parts.
TEST_P(NcclTest, SumsHaveTheHostsBits) {
  RunRanks(Ranks(), [](CommunicatorFactory& world, Device& gpu, int rank) {
    for (const DType dtype : kFloatingTypes) {
      for (const int64_t count : {0, 1, 3, 5003}) {
        for (const ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax}) {
          ExpectTheHostsBits(world, gpu, [&](Communicator& group, Device& on) {
            const Tensor x = RandomTensor(on, {count}, dtype, rank + 1);
            group.AllReduce(x, op, "all-reduce").Wait();
            return x;
          });
        }
      }
      ExpectTheHostsBits(world, gpu, [&](Communicator& group, Device& on) {
        const Tensor x =
            RandomTensor(on, {world.world_size() * 701}, dtype, rank + 1);
        const Tensor y = Tensor::Empty(on, {701}, dtype);
        group.ReduceScatter(x, y, "reduce-scatter").Wait();
        return y;
      });
    }
  });
}

// NCCL's own sums, of another order: near the host's, and the same everywhere.
TEST_P(NcclTest, FastSumsAreNearTheHosts) {
  RunRanks(Ranks(), [](CommunicatorFactory& world, Device& gpu, int rank) {
    const int64_t size = world.world_size();
    const auto ordered = All(world, "ordered"), fast = All(world, "fast");
    fast->UseReduceOrder(ReduceOrder::kFast);
    const auto sum_by = [&](Communicator& group, DType dtype, ReduceOp op) {
      const Tensor x = RandomTensor(gpu, {5003}, dtype, rank + 1);
      group.AllReduce(x, op, "all-reduce").Wait();
      return x;
    };
    for (const DType dtype : kFloatingTypes) {
      const Tensor x = sum_by(*fast, dtype, ReduceOp::kSum);
      const Values expected = Doubles(sum_by(*ordered, dtype, ReduceOp::kSum));
      const Values got = Doubles(x);
      for (size_t i = 0; i < got.size(); ++i) {
        ASSERT_NEAR(got[i], expected[i],
                    static_cast<double>(size) * RoundingOf(dtype) *
                        (size + std::abs(expected[i])))
            << i;
      }
      // Of two ranks there is one order.
      EXPECT_EQ(got == expected, size == 2) << dtype;
      EXPECT_TRUE(Doubles(sum_by(*fast, dtype, ReduceOp::kMax)) ==
                  Doubles(sum_by(*ordered, dtype, ReduceOp::kMax)));
      const Tensor of_all = Tensor::Empty(gpu, {size * 5003}, dtype);
      fast->AllGather(x, of_all, "sums").Wait();
      for (int64_t other = 0; other < size; ++other) {
        EXPECT_TRUE(Doubles(of_all.Slice(other * 5003, (other + 1) * 5003)) ==
                    got)
            << "rank " << other;
      }
      const Tensor parts = RandomTensor(gpu, {size * 701}, dtype, rank + 1);
      const Tensor own = Tensor::Empty(gpu, {701}, dtype);
      fast->ReduceScatter(parts, own, "reduce-scatter").Wait();
      fast->AllReduce(parts, ReduceOp::kSum, "all-reduce").Wait();
      EXPECT_TRUE(Doubles(own) ==
                  Doubles(parts.Slice(rank * 701, (rank + 1) * 701)));
    }
  });
}

TEST_P(NcclTest, MovesWhatTheHostMoves) {
  RunRanks(Ranks(), [](CommunicatorFactory& world, Device& gpu, int rank) {
    const int64_t size = world.world_size();
    const auto expect = [&](const auto& run) {
      ExpectTheHostsBits(world, gpu, [&](Communicator& group, Device& on) {
        return run(group, RandomTensor(on, {size * 30, 7}, DType::kBFloat16,
                                       rank + 1));
      });
    };
    expect([&](Communicator& group, const Tensor& x) {
      const Tensor y =
          Tensor::Empty(x.device(), {size * size * 30, 7}, x.dtype());
      group.AllGather(x, y, "all-gather").Wait();
      return y;
    });
    expect([&](Communicator& group, const Tensor& x) {
      const Tensor y = Tensor::EmptyLike(x);
      group.AllToAll(x, y, "all-to-all").Wait();
      return y;
    });
    expect([&](Communicator& group, const Tensor& x) {
      // Rank i sends j rows to rank j; to rank 0 none.
      std::vector<int64_t> send(size), receive(size, rank);
      std::iota(send.begin(), send.end(), 0);
      const int64_t sent = size * (size - 1) / 2;
      const Tensor y = Tensor::Empty(x.device(), {size * rank, 7}, x.dtype());
      group.AllToAllV(x.Slice(0, sent), send, y, receive, "all-to-all-v")
          .Wait();
      return y;
    });
    expect([&](Communicator& group, const Tensor& x) {
      group.Broadcast(x, static_cast<int>(size) - 1, "broadcast").Wait();
      return x;
    });
    // Around the ring, through the host.
    expect([&](Communicator& group, const Tensor& x) {
      const Tensor y = Tensor::EmptyLike(x);
      Event received = group.Receive(
          y, (rank + static_cast<int>(size) - 1) % static_cast<int>(size), 5,
          "receive");
      group.Send(x, (rank + 1) % static_cast<int>(size), 5, "send").Wait();
      received.Wait();
      return y;
    });
  });
}

// What goes on of the results is ordered after them, without the host.
TEST_P(NcclTest, ComputesWithWhatCame) {
  RunRanks(Ranks(), [](CommunicatorFactory& world, Device& gpu, int rank) {
    ExpectTheHostsBits(world, gpu, [&](Communicator& group, Device& on) {
      Tensor x = RandomTensor(on, {900}, DType::kFloat32, rank + 1);
      for (int i = 0; i < 5; ++i) {
        x = Scale(x, 0.7);
        group.AllReduce(x, ReduceOp::kSum, "again").Wait();
        x = Add(x, x);
      }
      return x;
    });
  });
}

// Ranks whose groups go in other orders wait for none that waits for them.
TEST_P(NcclTest, GroupsNeedNoOrderBetweenThem) {
  RunRanks(Ranks(), [](CommunicatorFactory& world, Device& gpu, int rank) {
    const std::unique_ptr<Communicator> groups[] = {All(world, "first"),
                                                    All(world, "second")};
    Tensor sums[2];
    Event events[2];
    for (const int turn : {0, 1}) {
      const int which = (turn + rank) % 2;
      sums[which] = Full(gpu, {100}, DType::kFloat32, 1 + which);
      events[which] =
          groups[which]->AllReduce(sums[which], ReduceOp::kSum, "sum");
    }
    for (Event& event : events) event.Wait();
    for (const int which : {0, 1}) {
      EXPECT_EQ(sums[which].ToVector<float>(),
                std::vector<float>(100, (1 + which) * world.world_size()));
    }
  });
}

// Nobody else writes what a collective reads that nobody waited for.
TEST_P(NcclTest, KeepsWhatItReads) {
  RunRanks(Ranks(), [](CommunicatorFactory& world, Device& gpu, int rank) {
    const auto group = All(world);
    if (rank != 0) {
      group->Broadcast(Full(gpu, {4000}, DType::kFloat32, 7), 1, "given up");
      for (int i = 0; i < 3; ++i) Full(gpu, {4000}, DType::kFloat32, 9);
    } else {
      const Tensor x = Tensor::Empty(gpu, {4000}, DType::kFloat32);
      group->Broadcast(x, 1, "given up").Wait();
      EXPECT_EQ(x.ToVector<float>(), std::vector<float>(4000, 7));
    }
  });
}

// More than the staging memory takes at once.
TEST(NcclSegmentsTest, LongSumsHaveTheHostsBits) {
  UseOrder(kLazyOrder);
  RunRanks(2, [](CommunicatorFactory& world, Device& gpu, int rank) {
    ExpectTheHostsBits(world, gpu, [&](Communicator& group, Device& on) {
      const int64_t count = (int64_t{9} << 20) + 3;
      const Tensor x = RandomTensor(on, {count}, DType::kFloat32, rank + 1);
      group.AllReduce(x, ReduceOp::kSum, "long").Wait();
      return x.Slice(count / 2 - 50000, count / 2 + 50000);
    });
  });
}

// The host waits for the GPU, which waits for a rank that does not come: the
// table of the hang knows in what.
TEST(NcclWatchTest, TellsOfARankThatDoesNotCome) {
  UseOrder(kLazyOrder);
  WaitRegistry registries[] = {WaitRegistry(0), WaitRegistry(1)};
  std::vector<HangWatch> watches;
  for (WaitRegistry& registry : registries) {
    watches.push_back({&registry, std::chrono::milliseconds(400)});
  }
  std::atomic<bool> told = false;
  RunRanks(
      2,
      [&](CommunicatorFactory& world, Device& gpu, int rank) {
        const auto group = All(world);
        const Tensor x = Full(gpu, {10}, DType::kFloat32, 1);
        while (rank == 1 && !told) {
          std::this_thread::sleep_for(std::chrono::milliseconds(5));
          const std::optional<std::string> alarm = registries[0].Alarm();
          if (!alarm.has_value()) continue;
          EXPECT_NE(alarm->find("all-reduce 'gradients'"), std::string::npos)
              << *alarm;
          told = true;
        }
        group->AllReduce(x, ReduceOp::kSum, "gradients").Wait();
        EXPECT_EQ(x.ToVector<float>(), std::vector<float>(10, 2));
      },
      watches);
  EXPECT_TRUE(told);
}

}  // namespace
}  // namespace trireme
