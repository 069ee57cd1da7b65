// States that stream through memory are those that lay there: whatever order
// buckets come in, also where the drive is slow, and where a step leaves out
// what was read ahead for it.

#include "parallel/optimizer/state_streamer.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
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

namespace trireme {
namespace {

constexpr int64_t kLimitBytes = int64_t{1} << 40;
constexpr int kBuckets = 6;

class StateStreamerTest : public testing::Test {
 protected:
  StateStreamerTest() {
    NvmeDevice::Options options{.folder = testing::TempDir() + "/drive",
                                .bytes = int64_t{8} << 20,
                                .owner = "rank 0"};
    options.engine =
        [this](int file) -> absl::StatusOr<std::unique_ptr<IoEngine>> {
      return std::make_unique<FaultyEngine>(MakeThreadEngine(file), fault_);
    };
    drive_ = NvmeDevice::Open(options, home_).value();
    streamer_ = std::make_unique<StateStreamer>(home_, *drive_);
    owned_.resize(kBuckets);
    for (int b = 0; b < kBuckets; ++b) {
      for (const int64_t elements : {1000 + b, 70000}) {
        OwnedParameter& part = owned_[b].emplace_back();
        part.value = Tensor::Zeros(home_, {elements}, DType::kBFloat16);
      }
      streamer_->Add(b, owned_[b], /*average=*/b == 2);
      order_.push_back(b);
    }
    streamer_->MakeBuffers();
    streamer_->set_order(order_);
    expected_.assign(kBuckets, 0);
  }

  // Each tensor holds the bucket's number of updates, and which it is.
  static std::vector<Tensor> TensorsOf(const OwnedParameter& part) {
    std::vector<Tensor> tensors = {part.master, part.m, part.v};
    if (part.ema.defined()) tensors.push_back(part.ema);
    return tensors;
  }
  void Write(int bucket) {
    const float updates = static_cast<float>(++expected_[bucket]);
    for (const OwnedParameter& part :
         streamer_->Bring(bucket, /*read=*/updates > 1)) {
      if (updates > 1) Check(part, updates - 1);
      float kind = 0;
      for (const Tensor& tensor : TensorsOf(part)) {
        std::ranges::fill(HostView<float>(tensor), updates + 100 * ++kind);
      }
    }
    streamer_->Return(bucket, /*states_changed=*/true,
                      /*values_changed=*/false);
  }
  static void Check(const OwnedParameter& part, float updates) {
    float kind = 0;
    for (const Tensor& tensor : TensorsOf(part)) {
      const std::vector<float> found = Download<float>(tensor);
      ASSERT_EQ(found, std::vector<float>(found.size(), updates + 100 * ++kind))
          << "tensor " << kind;
    }
  }
  // Where they lie between updates.
  void CheckAll() {
    streamer_->Settle();
    for (int b = 0; b < kBuckets; ++b) {
      for (const OwnedParameter& part : owned_[b]) {
        EXPECT_EQ(&part.m.device(), drive_.get());
        Check(part, static_cast<float>(expected_[b]));
      }
    }
    CHECK_OK(drive_->drive_status());
  }
  void Step() {
    streamer_->ExpectUpdates();
    for (const int b : order_) Write(b);
  }

  std::atomic<DriveFault> fault_ = DriveFault::kNone;
  CpuDevice home_{kLimitBytes};
  std::unique_ptr<NvmeDevice> drive_;
  std::vector<std::vector<OwnedParameter>> owned_;
  std::unique_ptr<StateStreamer> streamer_;
  std::vector<int> order_;
  std::vector<int> expected_;
};

TEST_F(StateStreamerTest, StepsFindWhatStepsBeforeLeft) {
  for (const int b : order_) Write(b);
  CheckAll();
  Step();
  fault_ = DriveFault::kSlow;
  Step();
  fault_ = DriveFault::kNone;
  Step();
  CheckAll();
}

TEST_F(StateStreamerTest, AStepMovesEachBucketOnceEachWay) {
  for (const int b : order_) Write(b);
  streamer_->Settle();
  const int64_t read = drive_->read_bytes(), written = drive_->written_bytes();
  Step();
  streamer_->Settle();
  EXPECT_EQ(drive_->read_bytes() - read, streamer_->step_bytes());
  EXPECT_EQ(drive_->written_bytes() - written, streamer_->step_bytes());
}

TEST_F(StateStreamerTest, AnyOrderDoes) {
  for (const int b : order_) Write(b);
  std::minstd_rand random(3);
  for (int i = 0; i < 60; ++i) {
    // Steps that are left out, and uses between steps.
    if (random() % 4 == 0) streamer_->ExpectUpdates();
    if (random() % 16 == 0) streamer_->Settle();
    Write(static_cast<int>(random() % kBuckets));
  }
  CheckAll();
}

// What is written to the drive between steps is what the next step finds.
TEST_F(StateStreamerTest, WhatWasReadAheadIsForgotten) {
  for (const int b : order_) Write(b);
  streamer_->ExpectUpdates();  // of a step that is left out
  streamer_->Settle();
  owned_[0][0].m.FillZero();
  drive_->Synchronize();
  streamer_->ExpectUpdates();
  const OwnedParameter& part = streamer_->Bring(0)[0];
  EXPECT_EQ(Download<float>(part.m), std::vector<float>(1000, 0));
  streamer_->Return(0, /*states_changed=*/false, /*values_changed=*/false);
}

}  // namespace
}  // namespace trireme
