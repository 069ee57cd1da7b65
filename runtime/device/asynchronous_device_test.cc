#include <cmath>
#include <cstdint>
#include <optional>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/asynchronous_cpu_device_testing.h"
#include "runtime/device/host.h"
#include "runtime/device/tensor.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/reduction.h"

namespace trireme {
namespace {

constexpr int64_t kLimitBytes = 1 << 24;
constexpr int kSeeds = 20;

Tensor Ones(Device& device, int64_t n) {
  return Upload<float>(device, {n}, std::vector<float>(n, 1.0f));
}

TEST(AsynchronousDeviceTest, TheHostSeesWhatItsCallsMean) {
  for (int seed = 0; seed < kSeeds; ++seed) {
    AsynchronousCpuDevice device(kLimitBytes, seed);
    Tensor sum = Ones(device, 64);
    for (int i = 0; i < 10; ++i) sum = Add(sum, sum);
    EXPECT_EQ(Sum(sum), 64 * 1024);
    EXPECT_EQ(Download<float>(sum).back(), 1024);
  }
}

TEST(AsynchronousDeviceTest, AStreamRunsAfterTheEventsThatItWaitsFor) {
  for (int seed = 0; seed < kSeeds; ++seed) {
    AsynchronousCpuDevice device(kLimitBytes, seed);
    Tensor x = Ones(device, 64);
    for (int i = 0; i < 100; ++i) {
      const StreamKind kind =
          i % 2 == 0 ? StreamKind::kCopyIn : StreamKind::kCompute;
      device.stream().Record().Wait(device.stream(kind));
      {
        const StreamScope scope(device, kind);
        ScaleInPlace(x, i % 2 == 0 ? 2 : 0.5);
      }
      device.stream(kind).Record().Wait(device.stream());
    }
    EXPECT_EQ(Sum(x), 64);
  }
}

TEST(AsynchronousDeviceTest, AStreamThatWaitsForNothingOvertakes) {
  int overtaken = 0;
  for (int seed = 0; seed < kSeeds; ++seed) {
    AsynchronousCpuDevice device(kLimitBytes, seed);
    Tensor x = Ones(device, 64);
    for (int i = 0; i < 1000; ++i) ScaleInPlace(x, 1);
    ScaleInPlace(x, 2);
    const Tensor y = Tensor::EmptyLike(x);
    {
      const StreamScope scope(device, StreamKind::kCopyOut);
      y.CopyFrom(x);
    }
    overtaken += Download<float>(y)[0] != 2 ? 1 : 0;
  }
  EXPECT_GT(overtaken, 0);
}

TEST(AsynchronousDeviceTest, AFreedBlockServesItsLastReaders) {
  for (int seed = 0; seed < kSeeds; ++seed) {
    AsynchronousCpuDevice device(kLimitBytes, seed);
    double sum = 0;
    for (int i = 0; i < 50; ++i) {
      // Each result but the last goes as soon as the next is on its way.
      Tensor x = Ones(device, 1 << 14);
      for (int j = 0; j < 4; ++j) x = Scale(x, 2);
      sum += Download<float>(x)[i];
    }
    EXPECT_EQ(sum, 50 * 16);
  }
}

TEST(AsynchronousDeviceTest, UnwrittenMemoryIsNaN) {
  AsynchronousCpuDevice device(kLimitBytes, 0);
  const Tensor x = Tensor::Empty(device, {64}, DType::kFloat32);
  EXPECT_TRUE(std::isnan(Download<float>(x)[63]));
}

TEST(AsynchronousDeviceDeathTest, ProtectedMemoryEndsWhoReadsWhatIsFreed) {
  EXPECT_DEATH(
      {
        AsynchronousCpuDevice device(
            kLimitBytes, 0, AsynchronousCpuDevice::FreedMemory::kProtected);
        std::optional<Tensor> x = Ones(device, 64);
        const volatile float* const data = x->data<float>();
        x.reset();
        device.Synchronize();
        static_cast<void>(data[0]);
      },
      "");
}

}  // namespace
}  // namespace trireme
