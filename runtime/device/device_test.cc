// The memory limit and its accounting, and tensors over the blocks.

#include "runtime/device/device.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/tensor.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kKib = 1024;

int64_t Of(const MemoryByCategory& bytes, MemoryCategory category) {
  return bytes[static_cast<int>(category)];
}

// One KiB per row.
Tensor Kib(Device& device, int64_t rows,
           MemoryCategory category = MemoryCategory::kActivations,
           std::string_view label = "activation") {
  return Tensor::Empty(device, {rows, 256}, DType::kFloat32, category, label);
}

TEST(MemoryTextTest, BytesForReaders) {
  EXPECT_EQ(BytesText(0), "0 B");
  EXPECT_EQ(BytesText(100), "100 B");
  EXPECT_EQ(BytesText(12 * kKib), "12.0 KiB");
  EXPECT_EQ(BytesText(3 * kKib * kKib * kKib / 2), "1.50 GiB");
  MemoryByCategory bytes{};
  EXPECT_EQ(MemoryText(bytes), "nothing");
  bytes[static_cast<int>(MemoryCategory::kOptimizer)] = 2 * kKib;
  bytes[static_cast<int>(MemoryCategory::kActivations)] = 30 * kKib;
  EXPECT_EQ(MemoryText(bytes), "activations 30.0 KiB, optimizer 2.00 KiB");
}

TEST(DeviceTest, CountsByCategoryInWholeLines) {
  CpuDevice device(64 * kKib);
  EXPECT_EQ(device.Statistics().limit_bytes, 64 * kKib);
  {
    const Tensor weight = Kib(device, 3, MemoryCategory::kParameters);
    const Tensor one =
        Tensor::Empty(device, {1}, DType::kUint8, MemoryCategory::kWorkspace);
    const Tensor none =
        Tensor::Empty(device, {0}, DType::kFloat32, MemoryCategory::kWorkspace);
    const MemoryStatistics now = device.Statistics();
    EXPECT_EQ(Of(now.current_by_category, MemoryCategory::kParameters),
              3 * kKib);
    EXPECT_EQ(Of(now.current_by_category, MemoryCategory::kWorkspace),
              2 * Device::kAlignment);
    EXPECT_EQ(now.current_bytes, 3 * kKib + 2 * Device::kAlignment);
  }
  EXPECT_EQ(device.Statistics().current_bytes, 0);
  EXPECT_EQ(device.Statistics().current_by_category, MemoryByCategory{});
  EXPECT_EQ(device.Statistics().peak_bytes, 3 * kKib + 2 * Device::kAlignment);
}

TEST(DeviceTest, PeakIsSplitAtItsMoment) {
  CpuDevice device(64 * kKib);
  const Tensor weight = Kib(device, 2, MemoryCategory::kParameters);
  // Activations alone peak at 10 KiB; all together at 2 + 6 + 9.
  { const Tensor activation = Kib(device, 10); }
  {
    const Tensor activation = Kib(device, 6);
    const Tensor gradient = Kib(device, 9, MemoryCategory::kGradients);
  }
  MemoryStatistics s = device.Statistics();
  EXPECT_EQ(s.peak_bytes, 17 * kKib);
  EXPECT_EQ(Of(s.at_peak_by_category, MemoryCategory::kActivations), 6 * kKib);
  EXPECT_EQ(Of(s.peak_by_category, MemoryCategory::kActivations), 10 * kKib);
  EXPECT_EQ(Of(s.peak_by_category, MemoryCategory::kGradients), 9 * kKib);
  int64_t sum = 0;
  for (int64_t bytes : s.at_peak_by_category) sum += bytes;
  EXPECT_EQ(sum, s.peak_bytes);

  device.ResetPeak();
  s = device.Statistics();
  EXPECT_EQ(s.peak_bytes, 2 * kKib);
  EXPECT_EQ(Of(s.peak_by_category, MemoryCategory::kActivations), 0);
}

TEST(DeviceTest, FillsToTheLimitExactly) {
  CpuDevice device(8 * kKib);
  const Tensor all = Kib(device, 8);
  EXPECT_TRUE(device.status().ok()) << device.status();
  EXPECT_FALSE(device.dry());
  const Tensor byte = Tensor::Empty(device, {1}, DType::kUint8);
  EXPECT_EQ(device.status().code(), absl::StatusCode::kResourceExhausted);
}

// A user reads what to change, and nothing crashes before the error is seen.
TEST(DeviceTest, OutOfMemoryNamesHoldersAndFixAndGoesDry) {
  CpuDevice device(32 * kKib);
  const Tensor weight = Kib(device, 4, MemoryCategory::kParameters, "qkv");
  const Tensor first = Kib(device, 9, MemoryCategory::kActivations, "mlp");
  const Tensor second = Kib(device, 9, MemoryCategory::kActivations, "mlp");
  EXPECT_TRUE(device.status().ok());
  const Tensor beyond =
      Kib(device, 11, MemoryCategory::kActivations, "attention");
  EXPECT_TRUE(device.dry());
  EXPECT_EQ(beyond.raw_data(), nullptr);
  const std::string text(device.status().message());
  EXPECT_THAT(text, HasSubstr("11.0 KiB more for 'attention' (activations)"));
  EXPECT_THAT(text, HasSubstr("limit of 32.0 KiB"));
  EXPECT_THAT(text, HasSubstr("in use: activations 18.0 KiB, parameters"));
  EXPECT_THAT(text, HasSubstr("18.0 KiB  mlp (activations, 2 tensors)"));
  EXPECT_THAT(text, HasSubstr("4.00 KiB  qkv (parameters, 1 tensor)"));
  EXPECT_LT(text.find("mlp"), text.find("qkv")) << "largest first";
  EXPECT_THAT(text, HasSubstr("to fit: use a smaller microbatch, recompute"));

  // It goes on counting, keeps the first error, and skips the maths.
  const Tensor more = Tensor::Zeros(device, {40, 256}, DType::kFloat32);
  more.CopyFrom(more);
  EXPECT_TRUE(more.ToVector<float>().empty());
  EXPECT_EQ(device.Statistics().peak_bytes, (4 + 9 + 9 + 11 + 40) * kKib);
  EXPECT_EQ(std::string(device.status().message()), text);
}

TEST(DeviceTest, FixFollowsTheLargestCategory) {
  for (const auto& [category, fix] :
       std::vector<std::pair<MemoryCategory, std::string>>{
           {MemoryCategory::kActivations, "microbatch"},
           {MemoryCategory::kParameters, "tp or pp"},
           {MemoryCategory::kGradients, "tp or pp"},
           {MemoryCategory::kOptimizer, "tp or pp"},
           {MemoryCategory::kCommunication, "gradient buckets"},
           {MemoryCategory::kWorkspace, "microbatch"}}) {
    CpuDevice device(8 * kKib);
    const Tensor most = Kib(device, 6, category);
    const Tensor beyond = Kib(device, 3, MemoryCategory::kActivations);
    EXPECT_THAT(std::string(device.status().message()), HasSubstr("to fit: "))
        << MemoryCategoryName(category);
    EXPECT_THAT(std::string(device.status().message()), HasSubstr(fix))
        << MemoryCategoryName(category);
  }
}

TEST(DeviceTest, ListsOnlyTheFiveLargestHolders) {
  CpuDevice device(64 * kKib);
  std::vector<Tensor> held;
  for (int i = 1; i <= 7; ++i) {
    held.push_back(Kib(device, i, MemoryCategory::kActivations,
                       "layer " + std::to_string(i)));
  }
  held.push_back(Kib(device, 64));
  const std::string text(device.status().message());
  for (int i = 3; i <= 7; ++i) {
    EXPECT_THAT(text, HasSubstr("layer " + std::to_string(i)));
  }
  EXPECT_THAT(text, Not(HasSubstr("layer 1 ")));
  EXPECT_THAT(text, Not(HasSubstr("layer 2 ")));
}

// A dry device says what a step would need and whether it fits, without
// holding anything.
TEST(DeviceTest, DryDeviceCountsWithoutMemory) {
  const int64_t tebibyte = int64_t{1} << 40;
  CpuDevice device(2 * tebibyte, CpuDevice::Mode::kDry);
  EXPECT_TRUE(device.dry());
  EXPECT_EQ(device.name(), "dry cpu");
  const Tensor huge = Tensor::Zeros(device, {tebibyte / 4}, DType::kFloat32);
  EXPECT_EQ(huge.raw_data(), nullptr);
  EXPECT_EQ(device.Statistics().current_bytes, tebibyte);
  EXPECT_TRUE(device.status().ok());
  const Tensor copy = huge.Clone();
  EXPECT_TRUE(device.status().ok());
  const Tensor beyond = huge.Clone();
  EXPECT_EQ(device.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(DeviceTest, FreedBlocksAreReusedAndGivenBackBeforeTheLimit) {
  CpuDevice device(160 * kKib);
  const void* freed = nullptr;
  {
    const Tensor block = Kib(device, 100);
    freed = block.raw_data();
  }
  {
    // A smaller block takes its front.
    const Tensor again = Kib(device, 68);
    EXPECT_EQ(again.raw_data(), freed);
  }
  // 100 KiB are kept; a block that does not fit there fits all the same.
  const Tensor other = Kib(device, 120);
  EXPECT_TRUE(device.status().ok()) << device.status();
  EXPECT_NE(other.raw_data(), nullptr);
}

TEST(DeviceTest, BlocksAreAligned) {
  CpuDevice device(64 * kKib);
  std::vector<Tensor> tensors;
  for (int64_t n : {1, 3, 17, 100}) {
    tensors.push_back(Tensor::Empty(device, {n}, DType::kBFloat16));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensors.back().raw_data()) %
                  Device::kAlignment,
              0);
  }
}

TEST(DeviceTest, ThreadsShareOneAccount) {
  CpuDevice device(1024 * kKib);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&device] {
      for (int i = 0; i < 200; ++i) {
        const Tensor x =
            Tensor::Zeros(device, {1 + i % 3, 256}, DType::kFloat32);
        x.data<float>()[0] = 1;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(device.Statistics().current_bytes, 0);
  EXPECT_GE(device.Statistics().peak_bytes, 3 * kKib);
  EXPECT_LE(device.Statistics().peak_bytes, 12 * kKib);
}

TEST(DeviceDeathTest, TensorsMustNotOutliveTheirDevice) {
  EXPECT_DEATH(
      {
        Tensor outlives;
        CpuDevice device(kKib);
        outlives = Tensor::Zeros(device, {1}, DType::kFloat32);
      },
      "1 tensors outlive their device");
}

TEST(TensorTest, ViewsShareStorage) {
  CpuDevice device(64 * kKib);
  const std::vector<float> values = {0, 1, 2, 3, 4, 5};
  Tensor view;
  {
    const Tensor x = Tensor::FromValues<float>(device, {3, 2}, values);
    view = x.Slice(1, 3).Reshape({-1});
    view.data<float>()[0] = 20;
    EXPECT_EQ(x.ToVector<float>(), (std::vector<float>{0, 1, 20, 3, 4, 5}));
    EXPECT_EQ(device.Statistics().current_bytes, Device::kAlignment);
  }
  // The view keeps the storage.
  EXPECT_EQ(view.shape(), (Shape{4}));
  EXPECT_EQ(view.ToVector<float>(), (std::vector<float>{20, 3, 4, 5}));
  EXPECT_EQ(view.Slice(2, 4).Slice(1, 2).ToVector<float>(),
            (std::vector<float>{5}));
  EXPECT_EQ(view.Slice(1, 1).num_elements(), 0);
}

TEST(TensorTest, UniqueWhileNobodyElseHoldsTheStorage) {
  CpuDevice device(64 * kKib);
  EXPECT_FALSE(Tensor().unique());
  Tensor x = Tensor::Zeros(device, {4, 2}, DType::kFloat32);
  EXPECT_TRUE(x.unique());
  {
    const Tensor row = x.Slice(1, 2);
    EXPECT_FALSE(x.unique());
    EXPECT_FALSE(row.unique());
  }
  EXPECT_TRUE(x.unique());
  const Tensor copy = x.Clone();
  EXPECT_TRUE(x.unique());
  EXPECT_TRUE(copy.unique());
  const Tensor moved = std::move(x);
  EXPECT_TRUE(moved.unique());
}

TEST(TensorTest, ClonesAndCopiesHaveTheirOwnElements) {
  CpuDevice device(64 * kKib);
  const std::vector<int64_t> values = {1, 2, 3, 4};
  const Tensor x = Tensor::FromValues<int64_t>(device, {2, 2}, values);
  const Tensor copy = x.Clone();
  EXPECT_EQ(copy.dtype(), DType::kInt64);
  x.FillZero();
  EXPECT_EQ(copy.ToVector<int64_t>(), values);
  x.Slice(1, 2).CopyFrom(copy.Slice(0, 1));
  EXPECT_EQ(x.ToVector<int64_t>(), (std::vector<int64_t>{0, 0, 1, 2}));
}

TEST(TensorDeathTest, NamesWhatDoesNotFit) {
  CpuDevice device(64 * kKib);
  const Tensor x = Tensor::Zeros(device, {3, 2}, DType::kFloat32);
  EXPECT_DEATH(x.Slice(2, 4), "rows \\[2, 4\\) of \\[3, 2\\]");
  EXPECT_DEATH(x.Reshape({4, 2}), "from \\[3, 2\\] to \\[4, 2\\]");
  EXPECT_DEATH(x.Reshape({-1, 4}), "from \\[3, 2\\] to \\[1, 4\\]");
  EXPECT_DEATH(x.data<double>(), "tensor is fp32");
  EXPECT_DEATH(Tensor().raw_data(), "Check failed");
}

}  // namespace
}  // namespace trireme
