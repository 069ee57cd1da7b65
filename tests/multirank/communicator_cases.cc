#include "tests/multirank/communicator_cases.h"

#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "runtime/comm/control.h"
#include "runtime/comm/dry.h"
#include "runtime/core/status.h"
#include "runtime/device/asynchronous_cpu_device_testing.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

constexpr int64_t kLimitBytes = int64_t{1} << 28;

std::vector<int> AllRanks(const CommunicatorFactory& factory) {
  std::vector<int> ranks(factory.world_size());
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

std::unique_ptr<Communicator> World(
    CommunicatorFactory& factory, Progress progress = Progress::kWhileWaiting) {
  return factory.Create(AllRanks(factory), "world", progress);
}

// A value that tells rank and element apart and is exact in every type.
int ValueOf(int rank, int64_t element) {
  return static_cast<int>((element * 5 + rank * 3) % 16);
}

template <typename T>
Tensor Values(Device& device, int rank, int64_t count) {
  std::vector<T> values;
  for (int64_t i = 0; i < count; ++i) {
    values.push_back(static_cast<T>(static_cast<float>(ValueOf(rank, i))));
  }
  return Tensor::FromValues<T>(device, {count}, values);
}

template <typename T>
void ExpectAllReduce(Communicator& world, Device& device, int64_t count,
                     ReduceOp op) {
  const Tensor data = Values<T>(device, world.rank(), count);
  world.AllReduce(data, op, "sum").Wait();
  int64_t wrong = 0;
  for (int64_t i = 0; i < count; ++i) {
    int expected = 0;
    for (int rank = 0; rank < world.size(); ++rank) {
      expected = op == ReduceOp::kSum ? expected + ValueOf(rank, i)
                                      : std::max(expected, ValueOf(rank, i));
    }
    wrong += static_cast<float>(data.data<T>()[i]) != expected;
  }
  EXPECT_EQ(wrong, 0) << "of " << count << " " << data.dtype();
}

// Sizes: nothing, fewer elements than ranks, uneven parts, several segments.
void AllReduceSumsEverySizeAndType(CommunicatorFactory& factory) {
  const auto world = World(factory);
  CpuDevice device(kLimitBytes);
  for (const ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax}) {
    for (const int64_t count : {0, 1, 3, 1000, 1200007}) {
      ExpectAllReduce<float>(*world, device, count, op);
      ExpectAllReduce<BFloat16>(*world, device, count, op);
    }
    ExpectAllReduce<double>(*world, device, 501, op);
    ExpectAllReduce<int32_t>(*world, device, 501, op);
    ExpectAllReduce<int64_t>(*world, device, 501, op);
    ExpectAllReduce<uint8_t>(*world, device, 501, op);
  }
}

// bf16 sums that round at every hop lose small gradients.
void Bf16IsRoundedOnce(CommunicatorFactory& factory) {
  const auto world = World(factory);
  CpuDevice device(kLimitBytes);
  const int64_t count = 100;
  // 1 + small parts, each below half of bf16's spacing at 1.
  const float part = world->rank() == 0 ? 1.0f : 0.003f;
  const Tensor data = Tensor::FromValues<BFloat16>(
      device, {count}, std::vector(count, BFloat16(part)));
  world->AllReduce(data, ReduceOp::kSum, "sum").Wait();
  float sum = 1.0f;
  for (int rank = 1; rank < world->size(); ++rank) {
    sum += static_cast<float>(BFloat16(0.003f));
  }
  for (int64_t i = 0; i < count; ++i) {
    ASSERT_EQ(data.data<BFloat16>()[i].bits, BFloat16(sum).bits);
  }
}

// Replicas that differ in the last bit drift apart over a training run.
void SumsAreTheSameBitsOnEveryRank(CommunicatorFactory& factory) {
  const auto world = World(factory);
  CpuDevice device(kLimitBytes);
  const int64_t count = 70001;
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) {
    values.push_back(
        std::sin(1.0f + static_cast<float>(i * 7 + world->rank())));
  }
  const auto sum = [&] {
    const Tensor data = Tensor::FromValues<float>(device, {count}, values);
    world->AllReduce(data, ReduceOp::kSum, "sum").Wait();
    return data;
  };
  const Tensor first = sum();
  EXPECT_EQ(first.ToVector<float>(), sum().ToVector<float>());
  const Tensor all =
      Tensor::Empty(device, {world->size() * count}, DType::kFloat32);
  world->AllGather(first, all, "compare").Wait();
  for (int rank = 0; rank < world->size(); ++rank) {
    EXPECT_EQ(all.Slice(rank * count, (rank + 1) * count).ToVector<float>(),
              first.ToVector<float>());
  }
}

void MaxOfNaNIsNaN(CommunicatorFactory& factory) {
  const auto world = World(factory);
  CpuDevice device(kLimitBytes);
  const float value = world->rank() == world->size() - 1
                          ? std::numeric_limits<float>::quiet_NaN()
                          : 1.0f;
  const Tensor data =
      Tensor::FromValues<float>(device, {1}, std::vector{value});
  world->AllReduce(data, ReduceOp::kMax, "overflow").Wait();
  EXPECT_TRUE(std::isnan(data.data<float>()[0]));
}

void ReduceScatterGivesEachRankItsSlice(CommunicatorFactory& factory) {
  const auto world = World(factory);
  CpuDevice device(kLimitBytes);
  const int size = world->size();
  for (const int64_t rows : {1, 7, 300001}) {
    const Tensor input = Values<float>(device, world->rank(), size * rows * 2)
                             .Reshape({size * rows, 2});
    const Tensor output = Tensor::Empty(device, {rows, 2}, DType::kFloat32);
    world->ReduceScatter(input, output, "gradients").Wait();
    int64_t wrong = 0;
    for (int64_t i = 0; i < rows * 2; ++i) {
      float expected = 0;
      for (int rank = 0; rank < size; ++rank) {
        expected += ValueOf(rank, world->rank() * rows * 2 + i);
      }
      wrong += output.data<float>()[i] != expected;
    }
    EXPECT_EQ(wrong, 0) << rows << " rows";
  }
}

void AllGatherOrdersSlicesByRank(CommunicatorFactory& factory) {
  const auto world = World(factory);
  CpuDevice device(kLimitBytes);
  const int size = world->size();
  for (const int64_t rows : {0, 1, 100000}) {
    const Tensor input = Values<BFloat16>(device, world->rank(), rows);
    const Tensor output =
        Tensor::Empty(device, {size * rows}, DType::kBFloat16);
    world->AllGather(input, output, "parameters").Wait();
    for (int rank = 0; rank < size; ++rank) {
      int64_t wrong = 0;
      for (int64_t i = 0; i < rows; ++i) {
        wrong += static_cast<float>(output.data<BFloat16>()[rank * rows + i]) !=
                 ValueOf(rank, i);
      }
      EXPECT_EQ(wrong, 0);
    }
  }
}

void AllToAllTransposesSlices(CommunicatorFactory& factory) {
  const auto world = World(factory);
  CpuDevice device(kLimitBytes);
  const int size = world->size();
  const int64_t slice = 33;
  const Tensor input = Values<int64_t>(device, world->rank(), size * slice);
  const Tensor output = Tensor::Empty(device, {size * slice}, DType::kInt64);
  world->AllToAll(input, output, "heads").Wait();
  for (int rank = 0; rank < size; ++rank) {
    for (int64_t i = 0; i < slice; ++i) {
      ASSERT_EQ(output.data<int64_t>()[rank * slice + i],
                ValueOf(rank, world->rank() * slice + i));
    }
  }
}

// Expert dispatch: any rank may get nothing, or everything.
void AllToAllVMovesUnevenRows(CommunicatorFactory& factory) {
  const auto world = World(factory);
  CpuDevice device(kLimitBytes);
  const int size = world->size();
  const int self = world->rank();
  const auto rows_of = [](int from, int to) -> int64_t {
    return (from + to) % 3 == 0 ? 0 : 1000 * from + to;
  };
  std::vector<int64_t> send;
  std::vector<int64_t> receive;
  std::vector<float> values;
  for (int peer = 0; peer < size; ++peer) {
    send.push_back(rows_of(self, peer));
    receive.push_back(rows_of(peer, self));
    values.insert(values.end(), send.back() * 2, 100.0f * self + peer);
  }
  const auto sum = [](const std::vector<int64_t>& rows) {
    return std::accumulate(rows.begin(), rows.end(), int64_t{0});
  };
  const Tensor input =
      Tensor::FromValues<float>(device, {sum(send), 2}, values);
  const Tensor output =
      Tensor::Empty(device, {sum(receive), 2}, DType::kFloat32);
  world->AllToAllV(input, send, output, receive, "tokens").Wait();
  std::vector<float> expected;
  for (int peer = 0; peer < size; ++peer) {
    expected.insert(expected.end(), receive[peer] * 2, 100.0f * peer + self);
  }
  EXPECT_EQ(output.ToVector<float>(), expected);
}

void BroadcastReachesAllFromAnyRoot(CommunicatorFactory& factory) {
  const auto world = World(factory);
  CpuDevice device(kLimitBytes);
  for (int root = 0; root < world->size(); ++root) {
    for (const int64_t count : {1, 100000}) {
      const Tensor data = Values<float>(device, world->rank(), count);
      world->Broadcast(data, root, "initial values").Wait();
      EXPECT_EQ(data.ToVector<float>(),
                Values<float>(device, root, count).ToVector<float>());
    }
  }
}

void MessagesMatchByTagAndThenByOrder(CommunicatorFactory& factory) {
  const auto world = World(factory);
  if (world->size() < 2 || world->rank() > 1) return;
  CpuDevice device(kLimitBytes);
  // Of each tag a short and a long one (eager and rendezvous).
  const std::vector<int64_t> counts = {3, 100000};
  std::vector<Event> events;
  std::vector<Tensor> received;
  if (world->rank() == 0) {
    for (const int tag : {7, 5}) {
      for (const int64_t count : counts) {
        events.push_back(world->Send(Values<float>(device, tag, count), 1, tag,
                                     "activation"));
      }
    }
  } else {
    for (const int tag : {5, 7}) {
      for (const int64_t count : counts) {
        received.push_back(Tensor::Zeros(device, {count}, DType::kFloat32));
        events.push_back(world->Receive(received.back(), 0, tag, "activation"));
      }
    }
  }
  for (Event& event : events) event.Wait();
  size_t at = 0;
  for (const int tag : {5, 7}) {
    if (received.empty()) break;
    for (const int64_t count : counts) {
      EXPECT_EQ(received[at++].ToVector<float>(),
                Values<float>(device, tag, count).ToVector<float>());
    }
  }
}

// A device may go right after the communicator, however late the others are.
void DestructorsCompleteWhatNobodyWaitedFor(CommunicatorFactory& factory) {
  const auto late = [](Device& device, const Communicator& world) {
    if (world.rank() > 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return Values<float>(device, world.rank(), 1000);
  };
  CpuDevice device(kLimitBytes);
  const auto world = World(factory);
  world->AllReduce(late(device, *world), ReduceOp::kSum, "gradients");
  AsynchronousCpuDevice streams(kLimitBytes, world->rank());
  const auto other = World(factory);
  other->AllReduce(late(streams, *other), ReduceOp::kSum, "gradients");
}

// A pipeline's steady state: everybody sends before anybody receives.
void SendsToEachOtherDoNotBlock(CommunicatorFactory& factory) {
  const auto world = World(factory, Progress::kBackground);
  if (world->size() < 2) return;
  CpuDevice device(kLimitBytes);
  const int64_t count = 200000;
  const int next = (world->rank() + 1) % world->size();
  const int previous = (world->rank() + world->size() - 1) % world->size();
  Event sent = world->Send(Values<float>(device, world->rank(), count), next, 1,
                           "activation");
  const Tensor received = Tensor::Zeros(device, {count}, DType::kFloat32);
  world->Receive(received, previous, 1, "activation").Wait();
  sent.Wait();
  EXPECT_EQ(received.ToVector<float>(),
            Values<float>(device, previous, count).ToVector<float>());
}

// Gradient buckets: many under way, waited for in the wrong order.
void ManyCollectivesAreUnderWayAtOnce(CommunicatorFactory& factory) {
  for (const Progress progress :
       {Progress::kWhileWaiting, Progress::kBackground}) {
    const auto world = World(factory, progress);
    CpuDevice device(kLimitBytes);
    std::vector<Tensor> buckets;
    std::vector<Event> events;
    for (int i = 0; i < 20; ++i) {
      const int64_t count = i % 5 == 0 ? 300000 : 100 * i;
      buckets.push_back(Tensor::FromValues<float>(
          device, {count},
          std::vector<float>(count, static_cast<float>(i + world->rank()))));
      events.push_back(world->AllReduce(buckets.back(), ReduceOp::kSum,
                                        "bucket " + std::to_string(i)));
    }
    // Every rank waits in another order.
    for (int i = 0; i < 20; ++i) {
      events[(i * 7 + world->rank()) % 20].Wait();
    }
    const int size = world->size();
    for (int i = 0; i < 20; ++i) {
      const auto values = buckets[i].ToVector<float>();
      EXPECT_EQ(values,
                std::vector<float>(
                    values.size(),
                    static_cast<float>(size * i + size * (size - 1) / 2)));
    }
  }
}

// Communicators of different purposes owe each other no order.
void CommunicatorsInterleaveInAnyOrder(CommunicatorFactory& factory) {
  const auto a = World(factory);
  const auto b = World(factory, Progress::kBackground);
  CpuDevice device(kLimitBytes);
  const int64_t count = 50000;
  for (int round = 0; round < 5; ++round) {
    const Tensor x = Values<float>(device, a->rank(), count);
    const Tensor y = Values<float>(device, a->rank() + 1, count);
    Event first;
    Event second;
    if (a->rank() % 2 == 0) {
      first = a->AllReduce(x, ReduceOp::kSum, "activations");
      second = b->AllReduce(y, ReduceOp::kSum, "gradients");
      first.Wait();
      second.Wait();
    } else {
      second = b->AllReduce(y, ReduceOp::kSum, "gradients");
      first = a->AllReduce(x, ReduceOp::kSum, "activations");
      second.Wait();
      first.Wait();
    }
    float expected = 0;
    for (int rank = 0; rank < a->size(); ++rank) expected += ValueOf(rank, 10);
    EXPECT_EQ(x.data<float>()[10], expected);
  }
}

// Groups of the grid: the position in the list is the rank, in any order.
void GroupsAreIndependent(CommunicatorFactory& factory) {
  const int size = factory.world_size();
  const int self = factory.world_rank();
  std::vector<int> group;
  for (int rank = size - 1; rank >= 0; --rank) {
    if (rank % 2 == self % 2) group.push_back(rank);
  }
  const auto half = factory.Create(group, "every other rank, descending");
  EXPECT_EQ(group[half->rank()], self);
  CpuDevice device(kLimitBytes);
  const Tensor data =
      Tensor::FromValues<int32_t>(device, {1}, std::vector{self});
  const Tensor all = Tensor::Empty(device, {static_cast<int64_t>(group.size())},
                                   DType::kInt32);
  half->AllGather(data, all, "ranks").Wait();
  EXPECT_EQ(all.ToVector<int32_t>(),
            std::vector<int32_t>(group.begin(), group.end()));
}

// Nobody passes before the last has come.
void BarrierWaitsForAll(CommunicatorFactory& factory) {
  const auto world = World(factory);
  for (int round = 0; round < 20; ++round) world->Barrier("step");
  EXPECT_EQ(world->Statistics().calls, 20);
}

// Buffers must live as long as their operation, whatever the caller drops, and
// be free when the communicator is gone.
void DroppedEventsKeepTheirTensors(CommunicatorFactory& factory) {
  for (int round = 0; round < 20; ++round) {
    CpuDevice device(kLimitBytes);
    {
      const auto world = World(factory, Progress::kBackground);
      for (int i = 0; i < 5; ++i) {
        world->AllReduce(Values<float>(device, i, 10000), ReduceOp::kSum,
                         "dropped");
      }
      world->Barrier("all have started");
    }
    EXPECT_EQ(device.Statistics().current_bytes, 0);
  }
}

// Runs every operation once; the statistics, and the device's peak.
struct Footprint {
  CommunicationStatistics traffic;
  MemoryStatistics memory;
};

Footprint FootprintOf(Communicator& world, CpuDevice::Mode mode) {
  CpuDevice device(kLimitBytes, mode);
  const int size = world.size();
  const Tensor large = Tensor::Zeros(device, {size * 100003}, DType::kFloat32);
  const Tensor small = Tensor::Zeros(device, {100003}, DType::kFloat32);
  const Tensor other = Tensor::Zeros(device, {size * 100003}, DType::kFloat32);
  Event first = world.AllReduce(large, ReduceOp::kSum, "a");
  Event second = world.ReduceScatter(other, small, "b");
  first.Wait();
  second.Wait();
  world.AllGather(small, large, "c").Wait();
  world.AllToAll(large, other, "d").Wait();
  world.Broadcast(small, 0, "e").Wait();
  if (size > 1 && world.rank() == 0) world.Send(small, 1, 0, "f").Wait();
  if (size > 1 && world.rank() == 1) world.Receive(small, 0, 0, "f").Wait();
  world.Barrier("g");
  return {world.Statistics(), device.Statistics()};
}

// The prediction of memory and traffic is what a real run uses.
void DryRunsPredictMemoryAndTraffic(CommunicatorFactory& factory) {
  const auto real_world = World(factory);
  const auto dry_world = World(factory);
  const Footprint real = FootprintOf(*real_world, CpuDevice::Mode::kReal);
  DryWorld predicted(factory.world_rank(), factory.world_size());
  const auto predicted_world = World(predicted);
  for (Communicator* world : {dry_world.get(), predicted_world.get()}) {
    const Footprint dry = FootprintOf(*world, CpuDevice::Mode::kDry);
    EXPECT_EQ(dry.traffic.calls, real.traffic.calls);
    EXPECT_EQ(dry.traffic.sent_bytes, real.traffic.sent_bytes);
    EXPECT_EQ(dry.memory.peak_bytes, real.memory.peak_bytes);
    EXPECT_EQ(dry.memory.peak_by_category, real.memory.peak_by_category);
    EXPECT_EQ(dry.memory.current_bytes, real.memory.current_bytes);
  }
  if (factory.world_size() > 1) {
    EXPECT_GT(
        real.memory
            .peak_by_category[static_cast<int>(MemoryCategory::kCommunication)],
        0);
  }
}

void ControlReducesPlainValues(CommunicatorFactory& factory) {
  const auto world = World(factory);
  Control control(*world);
  const int n = world->size();
  const double own = world->rank() + 1;
  std::vector<double> sums = {own, -own};
  std::vector<double> maxima = {own, -own};
  control.SumAndMax(sums, maxima, "figures");
  EXPECT_EQ(sums, (std::vector<double>{n * (n + 1) / 2.0, -n * (n + 1) / 2.0}));
  EXPECT_EQ(maxima, (std::vector<double>{1.0 * n, -1.0}));
  // More than a double holds exactly.
  int64_t large = (int64_t{1} << 62) + world->rank();
  control.Max(std::span(&large, 1), "large");
  EXPECT_EQ(large, (int64_t{1} << 62) + n - 1);
  std::vector<double> later = {own};
  Event event = control.StartSum(later, "later");
  event.Wait();
  EXPECT_EQ(later[0], n * (n + 1) / 2.0);
}

// Texts of every length, none included, end up with whom they belong to.
void ControlGathersTexts(CommunicatorFactory& factory) {
  const auto world = World(factory);
  Control control(*world);
  const auto text_of = [](int rank) { return std::string(100 * rank, 'a'); };
  std::vector<std::string> expected;
  for (int rank = 0; rank < world->size(); ++rank) {
    expected.push_back(text_of(rank));
  }
  EXPECT_EQ(control.AllGather(text_of(world->rank()), "texts"), expected);
  const std::vector<std::string> gathered =
      control.Gather(text_of(world->rank()), "texts");
  if (world->rank() == 0) {
    EXPECT_EQ(gathered, expected);
  } else {
    EXPECT_TRUE(gathered.empty());
  }
  for (const std::string& sent : {std::string("of rank 0"), std::string()}) {
    std::string text = world->rank() == 0 ? sent : "own";
    control.Broadcast(text, "text");
    EXPECT_EQ(text, sent);
  }
}

// A rank's error reaches all; who has none of its own hears whose it is.
void ControlAgreesOnTheFirstError(CommunicatorFactory& factory) {
  const auto world = World(factory);
  Control control(*world);
  EXPECT_TRUE(control.Agree(absl::OkStatus(), "verdict").ok());
  const int last = world->size() - 1;
  const bool fails = world->rank() == last;
  const absl::Status verdict = control.Agree(
      fails ? NotFound("no such file") : absl::OkStatus(), "verdict");
  EXPECT_EQ(
      MessageOf(verdict),
      last == 0 ? "no such file" : fmt::format("rank {}: no such file", last));
  EXPECT_EQ(absl::IsNotFound(verdict), fails);
}

}  // namespace

std::span<const CommunicatorCase> CommunicatorCases() {
  static constexpr CommunicatorCase kCases[] = {
      {"ControlReducesPlainValues", ControlReducesPlainValues},
      {"ControlGathersTexts", ControlGathersTexts},
      {"ControlAgreesOnTheFirstError", ControlAgreesOnTheFirstError},
      {"AllReduceSumsEverySizeAndType", AllReduceSumsEverySizeAndType},
      {"Bf16IsRoundedOnce", Bf16IsRoundedOnce},
      {"SumsAreTheSameBitsOnEveryRank", SumsAreTheSameBitsOnEveryRank},
      {"MaxOfNaNIsNaN", MaxOfNaNIsNaN},
      {"ReduceScatterGivesEachRankItsSlice",
       ReduceScatterGivesEachRankItsSlice},
      {"AllGatherOrdersSlicesByRank", AllGatherOrdersSlicesByRank},
      {"AllToAllTransposesSlices", AllToAllTransposesSlices},
      {"AllToAllVMovesUnevenRows", AllToAllVMovesUnevenRows},
      {"BroadcastReachesAllFromAnyRoot", BroadcastReachesAllFromAnyRoot},
      {"MessagesMatchByTagAndThenByOrder", MessagesMatchByTagAndThenByOrder},
      {"SendsToEachOtherDoNotBlock", SendsToEachOtherDoNotBlock},
      {"ManyCollectivesAreUnderWayAtOnce", ManyCollectivesAreUnderWayAtOnce},
      {"CommunicatorsInterleaveInAnyOrder", CommunicatorsInterleaveInAnyOrder},
      {"GroupsAreIndependent", GroupsAreIndependent},
      {"BarrierWaitsForAll", BarrierWaitsForAll},
      {"DroppedEventsKeepTheirTensors", DroppedEventsKeepTheirTensors},
      {"DestructorsCompleteWhatNobodyWaitedFor",
       DestructorsCompleteWhatNobodyWaitedFor},
      {"DryRunsPredictMemoryAndTraffic", DryRunsPredictMemoryAndTraffic},
  };
  return kCases;
}

}  // namespace trireme
