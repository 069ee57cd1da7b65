// Units that lie on a drive come to whoever takes them as they were written
// last, however few fit the window; and no more is read than must be.

#include "offload/unit_window.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/host.h"
#include "runtime/device/nvme/faulty_engine_testing.h"
#include "runtime/device/nvme/nvme_device.h"
#include "runtime/ops/transfer.h"

namespace trireme {
namespace {

constexpr int64_t kLimitBytes = int64_t{1} << 40;
constexpr int kUnits = 8;
// Each unit takes two blocks of the drive: values and scales.
constexpr int64_t kValues = 1000, kScales = 30;
constexpr int64_t kUnitBytes = 2 * (256 << 10);

class UnitWindowTest : public testing::Test {
 protected:
  // Opens the drive anew, where it was.
  void Open() {
    window_.reset();
    drive_.reset();
    versions_.clear();
    NvmeDevice::Options options{.folder = testing::TempDir() + "/window",
                                .bytes = kUnits * kUnitBytes,
                                .owner = "rank 0"};
    options.engine =
        [this](int file) -> absl::StatusOr<std::unique_ptr<IoEngine>> {
      return std::make_unique<FaultyEngine>(MakeThreadEngine(file), fault_);
    };
    drive_ = NvmeDevice::Open(options, host_).value();
  }

  static std::vector<DeviceBuffers::Buffer> Set() {
    return {{kValues, DType::kBFloat16},
            {0, DType::kUint8},
            {kScales, DType::kFloat32}};
  }

  // Of `count` buffers, with all units written once.
  void Make(int count, bool updates_read) {
    Open();
    window_ = std::make_unique<UnitWindow>(host_, *drive_, count, Set());
    for (int unit = 0; unit < kUnits; ++unit) {
      EXPECT_EQ(window_->Add(Set(), updates_read, "unit"), unit);
      Update(unit);
    }
  }

  void Update(int unit) {
    const std::vector<Tensor>& tensors = window_->Open(unit);
    const float value = static_cast<float>(100 * unit + ++versions_[unit]);
    std::ranges::fill(HostView<float>(tensors[2]), value);
    window_->Changed(unit);
  }

  // As a copy to a device does.
  void Take(int unit) {
    Stream& stream = device_.stream(StreamKind::kCopyIn);
    const std::vector<Tensor>& tensors = window_->Take(unit, stream);
    const Tensor taken = Tensor::Empty(device_, {kScales}, DType::kFloat32);
    Transfer(tensors[2].Slice(0, kScales), taken, stream);
    window_->TookUntil(unit, stream.Record());
    EXPECT_EQ(Download<float>(taken),
              std::vector<float>(
                  kScales, static_cast<float>(100 * unit + versions_[unit])))
        << "unit " << unit;
  }

  CpuDevice host_{kLimitBytes};
  CpuDevice device_{kLimitBytes};
  std::atomic<DriveFault> fault_ = DriveFault::kNone;
  std::unique_ptr<NvmeDevice> drive_;
  std::unique_ptr<UnitWindow> window_;
  std::map<int, int> versions_;
};

// Forward and back, where the device keeps the last two.
std::vector<int> ForwardAndBack() {
  std::vector<int> order;
  for (int unit = 0; unit < kUnits; ++unit) order.push_back(unit);
  for (int unit = kUnits - 3; unit >= 0; --unit) order.push_back(unit);
  return order;
}

// What Belady's rule reads on demand in the last of `steps` steps.
int LeastReads(const std::vector<int>& order, int steps, int count) {
  std::vector<int> all;
  for (int step = 0; step < steps + 1; ++step) {
    all.insert(all.end(), order.begin(), order.end());
  }
  std::vector<int> held;
  int reads = 0;
  const size_t last = order.size() * (steps - 1);
  for (size_t i = 0; i < order.size() * steps; ++i) {
    if (std::ranges::find(held, all[i]) != held.end()) continue;
    if (i >= last) ++reads;
    if (static_cast<int>(held.size()) == count) {
      const auto next = [&](int unit) {
        return std::find(all.begin() + static_cast<int64_t>(i), all.end(),
                         unit);
      };
      held.erase(std::ranges::max_element(
          held, [&](int a, int b) { return next(a) < next(b); }));
    }
    held.push_back(all[i]);
  }
  return reads;
}

TEST_F(UnitWindowTest, ReadsNoMoreThanMustBe) {
  const std::vector<int> order = ForwardAndBack();
  for (const int count : {1, 2, 3, 5, 8}) {
    Make(count, /*updates_read=*/false);
    window_->set_order(order);
    constexpr int kSteps = 4;
    int64_t before = 0;
    for (int step = 0; step < kSteps; ++step) {
      before = window_->moved().read;
      for (const int unit : order) Take(unit);
    }
    EXPECT_EQ(window_->moved().read - before,
              LeastReads(order, kSteps, count) * kUnitBytes)
        << count << " buffers";
    drive_->Synchronize();
    EXPECT_EQ(drive_->read_bytes(), window_->moved().read);
  }
}

// What an update has written is copied from where it was written, and nothing
// is read for it but what it needs.
TEST_F(UnitWindowTest, UpdatesReadOnlyWhatTheyNeed) {
  for (const bool updates_read : {false, true}) {
    SCOPED_TRACE(updates_read);
    Make(3, updates_read);
    window_->set_order(ForwardAndBack());
    DriveBytes before;
    for (int step = 0; step < 3; ++step) {
      before = window_->moved();
      for (int unit = 0; unit < kUnits; ++unit) {
        Update(unit);
        Take(unit);
      }
      for (int unit = kUnits - 3; unit >= 0; --unit) Take(unit);
      for (int unit = 0; unit < kUnits; ++unit) window_->ExpectUpdate(unit);
    }
    EXPECT_EQ(window_->moved().written - before.written, kUnits * kUnitBytes);
    // Of what the forward has made two are still there for the backward.
    EXPECT_EQ(
        window_->moved().read - before.read,
        (updates_read ? LeastReads(ForwardAndBack(), 3, 3) : 4) * kUnitBytes);
  }
}

// Whatever comes in whatever order, also where the drive is slow.
TEST_F(UnitWindowTest, WhatIsTakenIsWhatWasWrittenLast) {
  Make(3, /*updates_read=*/true);
  window_->set_order(ForwardAndBack());
  fault_ = DriveFault::kSlow;
  std::mt19937 random(7);
  for (int i = 0; i < 60; ++i) {
    const int unit = static_cast<int>(random() % kUnits);
    switch (random() % 4) {
      case 0:
        Update(unit);
        break;
      case 1:
        window_->ExpectUpdate(unit);
        Take(unit);
        break;
      default:
        Take(unit);
    }
    if (i % 20 == 19) {
      window_->Settle();
      for (const auto& [settled, version] : versions_) {
        const std::vector<float> stored =
            Download<float>(window_->OnDrive(settled)[2]);
        EXPECT_EQ(stored.front(), static_cast<float>(100 * settled + version));
      }
    }
  }
  EXPECT_TRUE(drive_->drive_status().ok()) << drive_->drive_status();
}

// Weights that are filled in one parameter after the other are written once.
TEST_F(UnitWindowTest, WhatIsFilledBitByBitIsWrittenOnce) {
  Make(2, /*updates_read=*/true);
  const int64_t before = window_->moved().written;
  for (int unit = 0; unit < kUnits; ++unit) {
    ++versions_[unit];
    const float value = static_cast<float>(100 * unit + versions_[unit]);
    for (int64_t i = 0; i < kScales; ++i) {
      HostView<float>(window_->Open(unit, /*read=*/true)[2])[i] = value;
      window_->Changed(unit, /*now=*/false);
    }
  }
  window_->Settle();
  EXPECT_EQ(window_->moved().written - before, kUnits * kUnitBytes);
  for (int unit = 0; unit < kUnits; ++unit) Take(unit);
}

TEST_F(UnitWindowTest, ADriveThatFailsSaysSo) {
  Make(2, /*updates_read=*/false);
  window_->set_order(ForwardAndBack());
  Take(0);
  drive_->Synchronize();
  fault_ = DriveFault::kTorn;
  Update(5);
  window_->Settle();
  fault_ = DriveFault::kNone;
  Stream& stream = device_.stream(StreamKind::kCopyIn);
  window_->Take(5, stream);
  window_->TookUntil(5, stream.Record());
  drive_->Synchronize();
  EXPECT_EQ(drive_->drive_status().code(), absl::StatusCode::kDataLoss)
      << drive_->drive_status();
}

}  // namespace
}  // namespace trireme
