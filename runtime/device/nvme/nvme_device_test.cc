// A drive keeps what tensors on it are given, wherever in the host's memory it
// comes from; what it loses, refuses or cannot hold is an error that says
// where.

#include "runtime/device/nvme/nvme_device.h"

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/host.h"
#include "runtime/device/nvme/aligned.h"
#include "runtime/device/nvme/faulty_engine_testing.h"
#include "runtime/ops/transfer.h"

namespace trireme {
namespace {

constexpr int64_t kLimitBytes = int64_t{1} << 40;
constexpr int64_t kBlock = Extents::kBlockBytes;
constexpr int64_t kBlockFloats = kBlock / 4;

std::vector<float> Numbers(int64_t count, float first) {
  std::vector<float> numbers(count);
  std::iota(numbers.begin(), numbers.end(), first);
  return numbers;
}

enum class Engine { kUring, kThreads };

class NvmeDeviceTest : public testing::TestWithParam<Engine> {
 protected:
  NvmeDeviceTest() : folder_(testing::TempDir() + "/drive") {
    open_.engine =
        [this](int file) -> absl::StatusOr<std::unique_ptr<IoEngine>> {
      std::unique_ptr<IoEngine> engine;
      if (GetParam() == Engine::kUring) {
        ASSIGN_OR_RETURN(engine, MakeUringEngine(file));
      } else {
        engine = MakeThreadEngine(file);
      }
      return std::make_unique<FaultyEngine>(std::move(engine), fault_);
    };
    open_.folder = folder_;
    open_.bytes = 8 * kBlock;
    open_.owner = "rank 3";
  }
  void SetUp() override {
    if (GetParam() == Engine::kUring && !MakeUringEngine(0).ok()) {
      GTEST_SKIP() << MakeUringEngine(0).status();
    }
    auto opened = NvmeDevice::Open(open_, host_);
    CHECK_OK(opened.status());
    drive_ = *std::move(opened);
  }
  Tensor OnDrive(int64_t elements) {
    return Tensor::Empty(*drive_, {elements}, DType::kFloat32,
                         MemoryCategory::kOptimizer, "states");
  }
  Tensor InMemory(const std::vector<float>& values) {
    return Upload<float>(host_, {static_cast<int64_t>(values.size())}, values);
  }
  std::string Error() {
    drive_->Synchronize();
    return MessageOf(drive_->drive_status());
  }

  const std::string folder_;
  std::atomic<DriveFault> fault_ = DriveFault::kNone;
  CpuDevice host_{kLimitBytes};
  NvmeDevice::Options open_;
  std::unique_ptr<NvmeDevice> drive_;
};

TEST_P(NvmeDeviceTest, KeepsWhatItIsGivenWhereverThatLies) {
  constexpr int64_t kElements = 5 * kBlockFloats;
  const Tensor on_drive = OnDrive(kElements);
  on_drive.FillZero();
  std::vector<float> expected(kElements, 0);
  // Memory that is aligned for the drive, and memory that is not.
  const Tensor whole = EmptyAligned(host_, kElements, DType::kFloat32,
                                    MemoryCategory::kWorkspace, "memory");
  drive_->Register(whole);
  std::minstd_rand random(7);
  for (int i = 0; i < 40; ++i) {
    int64_t begin = random() % kElements, end = random() % (kElements + 1);
    if (begin > end) std::swap(begin, end);
    if (i % 4 == 0) {
      begin = begin / kBlockFloats * kBlockFloats;
      end = (end + kBlockFloats - 1) / kBlockFloats * kBlockFloats;
    }
    const auto values =
        Numbers(end - begin, static_cast<float>(random() % 1000));
    std::copy(values.begin(), values.end(), expected.begin() + begin);
    const Tensor memory =
        i % 2 == 0 ? whole.Slice(begin, end) : InMemory(values);
    if (i % 2 == 0) memory.CopyFrom(InMemory(values));
    on_drive.Slice(begin, end).CopyFrom(memory);
    // Another part comes back.
    const int64_t at = random() % kElements;
    const Tensor back = Tensor::Empty(host_, {kElements - at}, DType::kFloat32);
    back.CopyFrom(on_drive.Slice(at, kElements));
    ASSERT_EQ(Download<float>(back),
              std::vector<float>(expected.begin() + at, expected.end()))
        << "turn " << i;
  }
  ASSERT_EQ(Download<float>(on_drive), expected);
  EXPECT_EQ(Error(), "");
}

TEST_P(NvmeDeviceTest, StreamsWaitForEventsAndNothingElse) {
  const Tensor on_drive = OnDrive(4 * kBlockFloats);
  const auto values = Numbers(4 * kBlockFloats, 1);
  const Tensor memory = InMemory(values);
  const Tensor back = Tensor::Zeros(host_, {4 * kBlockFloats}, DType::kFloat32);
  fault_ = DriveFault::kSlow;
  Stream& writes = drive_->stream(StreamKind::kCopyOut);
  Stream& reads = drive_->stream(StreamKind::kCopyIn);
  Transfer(memory, on_drive, writes);
  Event written = writes.Record();
  EXPECT_FALSE(written.Test());
  written.Wait(reads);
  Transfer(on_drive, back, reads);
  reads.Record().Synchronize();
  EXPECT_EQ(Download<float>(back), values);
  EXPECT_EQ(drive_->written_bytes(), 4 * kBlock);
  EXPECT_EQ(drive_->read_bytes(), 4 * kBlock);
}

TEST_P(NvmeDeviceTest, WhatGoesInPartGoesOn) {
  const Tensor on_drive = OnDrive(3 * kBlockFloats);
  const auto values = Numbers(3 * kBlockFloats, 5);
  fault_ = DriveFault::kShort;
  on_drive.CopyFrom(InMemory(values));
  EXPECT_EQ(Download<float>(on_drive), values);
  EXPECT_EQ(Error(), "");
}

TEST_P(NvmeDeviceTest, FailuresSayWhereAndEndTheTraffic) {
  struct Case {
    DriveFault fault;
    absl::StatusCode code;
    const char* text;
  };
  for (const Case& expected :
       {Case{DriveFault::kBroken, absl::StatusCode::kUnavailable,
             "cannot write: Input/output error"},
        Case{DriveFault::kFull, absl::StatusCode::kResourceExhausted,
             "cannot write: No space left on device"},
        Case{DriveFault::kTorn, absl::StatusCode::kDataLoss,
             "the drive lost a part of it"},
        Case{DriveFault::kEnds, absl::StatusCode::kDataLoss,
             "cannot read: found 0 bytes, expected 262144"}}) {
    drive_ = NvmeDevice::Open(open_, host_).value();
    {
      const Tensor before = OnDrive(kBlockFloats);
      const Tensor on_drive = OnDrive(kBlockFloats);
      on_drive.CopyFrom(InMemory(Numbers(kBlockFloats, 1)));
      ASSERT_EQ(Error(), "");
      fault_ = expected.fault;
      on_drive.CopyFrom(InMemory(Numbers(kBlockFloats, 2)));
      Download<float>(on_drive);
      fault_ = DriveFault::kNone;
      const absl::Status status = drive_->drive_status();
      EXPECT_EQ(status.code(), expected.code) << status;
      for (const std::string& text : {folder_ + "/trireme-",
                                      std::string("(rank 3): bytes 262144 to "
                                                  "524288 of 2097152: "),
                                      std::string(expected.text)}) {
        EXPECT_NE(MessageOf(status).find(text), std::string::npos)
            << status << " without " << text;
      }
      const int64_t written = drive_->written_bytes();
      before.CopyFrom(InMemory(Numbers(kBlockFloats, 1)));
      drive_->Synchronize();
      EXPECT_EQ(drive_->written_bytes(), written);
      EXPECT_EQ(drive_->drive_status(), status);
    }
    drive_.reset();
  }
}

TEST_P(NvmeDeviceTest, TooSmallADriveIsRefusedWithFigures) {
  open_.bytes = int64_t{1} << 60;
  const absl::Status status = NvmeDevice::Open(open_, host_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(MessageOf(status).find(
                folder_ + ": rank 3 would need 1048576.0 TiB there, of which "),
            std::string::npos)
      << status;
}

TEST_P(NvmeDeviceTest, LeavesNothingInItsFolder) {
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_P(NvmeDeviceTest, ADryOneTakesAsMuch) {
  CpuDevice dry_host(kLimitBytes, CpuDevice::Mode::kDry);
  const auto dry = NvmeDevice::Dry(dry_host);
  const Tensor counted =
      Tensor::Zeros(*dry, {3 * kBlockFloats}, DType::kFloat32);
  const Tensor real = OnDrive(3 * kBlockFloats);
  EXPECT_EQ(dry->Statistics().peak_bytes, drive_->Statistics().peak_bytes);
  EXPECT_EQ(dry_host.Statistics().peak_bytes, host_.Statistics().peak_bytes);
}

TEST_P(NvmeDeviceTest, MoreThanItsExtentsIsAnError) {
  const Tensor all = OnDrive(8 * kBlockFloats);
  ASSERT_EQ(Error(), "");
  const Tensor more = OnDrive(1);
  EXPECT_EQ(drive_->drive_status().code(),
            absl::StatusCode::kResourceExhausted);
}

INSTANTIATE_TEST_SUITE_P(Engines, NvmeDeviceTest,
                         testing::Values(Engine::kUring, Engine::kThreads),
                         [](const auto& info) {
                           return info.param == Engine::kUring ? "uring"
                                                               : "threads";
                         });

}  // namespace
}  // namespace trireme
