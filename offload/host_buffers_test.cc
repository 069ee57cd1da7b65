// Buffers at home: how many there are, how large, and when the next may write.

#include "offload/host_buffers.h"

#include <atomic>
#include <cstdint>
#include <utility>

#include "gtest/gtest.h"
#include "runtime/device/asynchronous_cpu_device_testing.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

constexpr int64_t kLimitBytes = int64_t{1} << 20;

class HostBuffersTest : public testing::Test {
 protected:
  CpuDevice home_{kLimitBytes};
  HostBuffers buffers_{home_, MemoryCategory::kActivations, "test"};
};

TEST_F(HostBuffersTest, ABufferIsNotWrittenBeforeItHasBeenRead) {
  AsynchronousCpuDevice device(kLimitBytes, /*seed=*/1,
                               AsynchronousCpuDevice::FreedMemory::kPoisoned,
                               {StreamKind::kCopyIn});
  Stream& in = device.stream(StreamKind::kCopyIn);
  Stream& out = device.stream(StreamKind::kCopyOut);
  Tensor first = buffers_.Take(64, out);
  std::atomic<bool> read = false, read_before = false;
  in.Launch([&read] { read = true; });
  buffers_.Return(std::move(first), in.Record());
  const Tensor second = buffers_.Take(64, out);
  out.Launch([&] { read_before = read.load(); });
  out.Synchronize();
  EXPECT_TRUE(read_before);
  EXPECT_EQ(home_.Statistics().peak_bytes, 64);
}

TEST_F(HostBuffersTest, ThereAreAsManyAsAreInUseAtOnce) {
  Stream& stream = home_.stream();
  Tensor first = buffers_.Take(128, stream);
  Tensor second = buffers_.Take(128, stream);
  EXPECT_NE(first.raw_data(), second.raw_data());
  buffers_.Return(std::move(first), stream.Record());
  buffers_.Return(std::move(second), stream.Record());
  const Tensor third = buffers_.Take(128, stream);
  const Tensor fourth = buffers_.Take(64, stream);
  EXPECT_EQ(home_.Statistics().peak_bytes, 2 * 128);
}

TEST_F(HostBuffersTest, WhatIsTooSmallMakesRoomForWhatIsLargeEnough) {
  Stream& stream = home_.stream();
  buffers_.Return(buffers_.Take(64, stream), stream.Record());
  const Tensor larger = buffers_.Take(192, stream);
  EXPECT_EQ(larger.bytes(), 192);
  EXPECT_EQ(home_.Statistics().peak_bytes, 192);
}

}  // namespace
}  // namespace trireme
