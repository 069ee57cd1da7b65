// The GPU as a device: bytes get there and back in the order of its streams,
// whatever that order is.

#include "runtime/device/cuda/cuda_device.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <span>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cuda/gpus.h"
#include "runtime/device/cuda/orders_testing.h"
#include "runtime/device/host.h"
#include "runtime/device/host_memory.h"
#include "runtime/device/stream_stopwatch.h"
#include "runtime/device/tensor.h"
#include "runtime/ops/kernels.h"

namespace trireme {
namespace {

constexpr int64_t kPlenty = int64_t{1} << 30;

std::vector<float> Ramp(int64_t count, float first = 0) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), first);
  return values;
}

// Nothing is computed here.
Device::KernelTables NoKernels() {
  static const Kernels none{};
  return {.real = none, .dry = none};
}

// Under the order of an emulated GPU that the parameter says.
class CudaDeviceTest : public testing::TestWithParam<int> {
 protected:
  CudaDeviceTest() {
    UseOrder(GetParam());
    device_ = DeviceOf(kPlenty);
  }

  static std::unique_ptr<CudaDevice> DeviceOf(int64_t limit_bytes) {
    return std::make_unique<CudaDevice>(0, limit_bytes, NoKernels(),
                                        CudaDevice::Memory::kPoisoned);
  }

  Tensor Uploaded(const std::vector<float>& values) {
    return Upload<float>(*device_, {static_cast<int64_t>(values.size())},
                         values);
  }

  std::unique_ptr<CudaDevice> device_;
};

INSTANTIATE_TEST_SUITE_P(Orders, CudaDeviceTest, testing::Range(kLazyOrder, 4));

TEST_P(CudaDeviceTest, ValuesComeBack) {
  // More than passes through the pinned buffer at once.
  const std::vector<float> values = Ramp((9 << 20) / sizeof(float) + 3);
  EXPECT_EQ(Uploaded(values).ToVector<float>(), values);
}

TEST_P(CudaDeviceTest, MarksKnowWhenTheirStreamsCameToThem) {
  static constexpr double kSeconds = 0.02;
  Stream& first = device_->stream(StreamKind::kCopyIn);
  Stream& second = device_->stream();
  const auto work = [] {
    std::this_thread::sleep_for(std::chrono::duration<double>(kSeconds));
  };
  const auto begin = first.Mark();
  first.Launch(work);
  const auto end = first.Mark();
  first.Record().Wait(second);
  const auto behind = second.Mark();
  behind->Wait();
  EXPECT_TRUE(begin->Reached() && end->Reached());
  EXPECT_GE(end->SecondsSince(*begin), kSeconds);
  EXPECT_GE(behind->SecondsSince(*begin), kSeconds);
  StreamStopwatch watch;
  watch.Time(first, [&] { first.Launch(work); });
  first.Synchronize();
  EXPECT_GE(watch.seconds(), kSeconds);
  EXPECT_EQ(watch.seconds(), watch.seconds());
}

// What cuDNN finds after a launch would be taken for its failure.
TEST_P(CudaDeviceTest, AskingForWhatIsNotDoneLeavesNoError) {
  Stream& stream = device_->stream();
  const auto given = [&] {
    stream.Launch(
        [] { std::this_thread::sleep_for(std::chrono::milliseconds(20)); });
  };
  given();
  stream.Record().Test();
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  given();
  stream.Mark()->Reached();
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  stream.Synchronize();
}

TEST_P(CudaDeviceTest, CopiesToAndFromTheHost) {
  Device host("host", /*on_host=*/true, kPlenty, std::make_unique<HostMemory>(),
              NoKernels());
  const std::vector<float> values = Ramp(1000);
  const Tensor source = Upload<float>(host, {1000}, values);
  const Tensor there = Tensor::Empty(*device_, {1000}, DType::kFloat32);
  there.CopyFrom(source);
  const Tensor clone = there.Clone();
  const Tensor back = Tensor::Empty(host, {1000}, DType::kFloat32);
  back.CopyFrom(clone);
  EXPECT_EQ(back.ToVector<float>(), values);
}

TEST_P(CudaDeviceTest, CopiesPinnedMemoryWhereItLies) {
  constexpr size_t kBytes = 5 << 20;
  const auto count = static_cast<int64_t>(kBytes / sizeof(float));
  const std::unique_ptr<void, decltype(&std::free)> memory(
      std::aligned_alloc(4096, kBytes), &std::free);
  auto* const host = static_cast<float*>(memory.get());
  const std::span<std::byte> range(static_cast<std::byte*>(memory.get()),
                                   kBytes);
  {
    const auto pinned = PinnedMemory::Pin({range});
    ASSERT_TRUE(pinned.ok()) << pinned.status();
    EXPECT_EQ(PinnedMemory::Pin({range}).status().code(),
              absl::StatusCode::kResourceExhausted);
    const std::vector<float> values = Ramp(count);
    std::copy(values.begin(), values.end(), host);
    const Tensor there = Tensor::Empty(*device_, {count}, DType::kFloat32);
    Stream& stream = device_->stream();
    stream.CopyBytes(there.raw_data(), host, kBytes);
    const Tensor twice = there.Clone();
    stream.Synchronize();
    std::fill(host, host + count, 0.0f);
    stream.CopyBytes(host, twice.raw_data(), kBytes);
    stream.Synchronize();
    EXPECT_EQ(std::vector<float>(host, host + count), values);
  }
  // It is anybody's again.
  EXPECT_TRUE(PinnedMemory::Pin({range}).ok());
}

TEST_P(CudaDeviceTest, FreedMemoryIsReusedInTheOrderOfTheStreams) {
  std::vector<Tensor> kept;
  for (int i = 0; i < 8; ++i) {
    const auto first = static_cast<float>(i);
    const Tensor temporary = Uploaded(Ramp(3000, first));
    kept.push_back(temporary.Clone());
    // On another stream, which waits for what made the clone.
    StreamScope scope(*device_, StreamKind::kCopyOut);
    device_->stream(StreamKind::kCompute).Record().Wait(device_->stream());
    const Tensor other = kept.back().Clone();
    device_->stream().Record().Wait(device_->stream(StreamKind::kCompute));
    kept.push_back(other);
  }
  for (size_t i = 0; i < kept.size(); ++i) {
    EXPECT_EQ(kept[i].ToVector<float>(), Ramp(3000, static_cast<float>(i / 2)));
  }
}

TEST_P(CudaDeviceTest, OtherThreadsMayFree) {
  const std::vector<float> values = Ramp(5000);
  Tensor tensor = Uploaded(values);
  Tensor copy = tensor.Clone();
  std::thread([freed = std::move(tensor)]() mutable { freed = {}; }).join();
  const Tensor more = Uploaded(Ramp(5000, 7));
  EXPECT_EQ(copy.ToVector<float>(), values);
  EXPECT_EQ(more.ToVector<float>(), Ramp(5000, 7));
}

TEST_P(CudaDeviceTest, EmptyMemoryIsNaNAndZerosAreZero) {
  const Tensor empty = Tensor::Empty(*device_, {100}, DType::kFloat32);
  EXPECT_TRUE(std::isnan(empty.ToVector<float>()[99]));
  const Tensor zeros = Tensor::Zeros(*device_, {100}, DType::kFloat32);
  EXPECT_EQ(zeros.ToVector<float>(), std::vector<float>(100));
}

TEST_P(CudaDeviceTest, WorkOfTheHostHoldsTensorsUntilItHasRun) {
  const Tensor source = Uploaded(Ramp(10));
  auto held = std::make_shared<Tensor>(source.Clone());
  device_->stream().Launch([held] {});
  held.reset();
  device_->Synchronize();
  device_->stream().Record();
  EXPECT_EQ(device_->Statistics().current_bytes, 64);
}

TEST_P(CudaDeviceTest, KeepsToItsLimitAndNamesTheHolders) {
  const std::unique_ptr<Device> small = DeviceOf(64 << 20);
  std::vector<Tensor> kept;
  while (small->status().ok()) {
    kept.push_back(Tensor::Empty(*small, {1 << 20}, DType::kFloat32,
                                 MemoryCategory::kActivations, "attention"));
    ASSERT_LE(kept.size(), 17u);
  }
  EXPECT_EQ(kept.size(), 17u);
  const std::string message(small->status().message());
  EXPECT_NE(message.find("out of memory on cuda:0"), std::string::npos);
  EXPECT_NE(message.find("attention"), std::string::npos);
}

TEST_P(CudaDeviceTest, GivesSlabsBackBeforeTheLimit) {
  constexpr int64_t kLimit = 64 << 20;
  const std::unique_ptr<Device> small = DeviceOf(kLimit);
  const int64_t before = FreeBytesOfCudaGpu(0);
  // A block for each stream in turn, of which only one fits.
  for (int kind = 0; kind < kNumStreams; ++kind) {
    StreamScope scope(*small, static_cast<StreamKind>(kind));
    const Tensor large = Tensor::Zeros(*small, {kLimit * 3 / 4}, DType::kUint8);
    EXPECT_TRUE(small->status().ok());
  }
  EXPECT_LE(before - FreeBytesOfCudaGpu(0), kLimit * 3 / 2);
}

TEST_P(CudaDeviceTest, TheHostReachesNoElement) {
  const Tensor tensor = Uploaded(Ramp(4));
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_DEATH((void)HostView<float>(tensor), "cuda:0");
}

}  // namespace
}  // namespace trireme
