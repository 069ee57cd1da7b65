// Buffers on a device: whoever takes one comes after its last user, and what
// that has left is gone.

#include "offload/device_buffers.h"

#include <atomic>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/asynchronous_cpu_device_testing.h"
#include "runtime/device/tensor.h"

namespace trireme {
namespace {

using enum StreamKind;

constexpr int64_t kLimitBytes = int64_t{1} << 20;
constexpr int64_t kElements = 16;

DeviceBuffers OneBuffer(Device& device) {
  return {device,
          /*count=*/1,
          {{kElements, DType::kFloat32}, {}},
          MemoryCategory::kParameters,
          "test"};
}

TEST(DeviceBuffersTest, NobodyTakesOneBeforeItsLastUserHasPassed) {
  AsynchronousCpuDevice device(kLimitBytes, /*seed=*/1,
                               AsynchronousCpuDevice::FreedMemory::kPoisoned,
                               {kCompute});
  DeviceBuffers buffers = OneBuffer(device);
  std::vector<Tensor> first = buffers.Take(device.stream(kCopyIn));
  EXPECT_FALSE(first[1].defined());
  std::atomic<bool> used = false, used_before = false;
  device.stream().Launch([&used] { used = true; });
  buffers.Return(std::move(first), device.stream());
  buffers.Take(device.stream(kCopyIn));
  device.stream(kCopyIn).Launch([&] { used_before = used.load(); });
  device.Synchronize();
  EXPECT_TRUE(used_before);
}

// A unit that comes back to the same place would else find there what it left,
// and nobody would see that it was read too early.
TEST(DeviceBuffersTest, WhatTheLastUserHasLeftIsGone) {
  AsynchronousCpuDevice device(kLimitBytes, /*seed=*/1);
  DeviceBuffers buffers = OneBuffer(device);
  std::vector<Tensor> set = buffers.Take(device.stream());
  const Tensor place = set[0];
  place.FillZero();
  EXPECT_EQ(place.ToVector<float>()[0], 0);
  buffers.Return(std::move(set), device.stream());
  for (const float element : place.ToVector<float>()) {
    EXPECT_TRUE(std::isnan(element));
  }
}

TEST(DeviceBuffersDeathTest, OnRequestNobodyReachesOneThatIsFree) {
  AsynchronousCpuDevice device(kLimitBytes, /*seed=*/1,
                               AsynchronousCpuDevice::FreedMemory::kProtected);
  DeviceBuffers buffers = OneBuffer(device);
  std::vector<Tensor> set = buffers.Take(device.stream());
  volatile float* const element = set[0].data<float>();
  *element = 1;
  buffers.Return(std::move(set), device.stream());
  device.Synchronize();
  EXPECT_DEATH(*element = 2, "");
  set = buffers.Take(device.stream(kCopyIn));
  device.Synchronize();
  EXPECT_TRUE(std::isnan(*element));
  *element = 3;
  EXPECT_EQ(*element, 3);
}

}  // namespace
}  // namespace trireme
