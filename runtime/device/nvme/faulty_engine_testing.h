// An engine whose drive fails when it is told to.

#ifndef TRIREME_RUNTIME_DEVICE_NVME_FAULTY_ENGINE_TESTING_H_
#define TRIREME_RUNTIME_DEVICE_NVME_FAULTY_ENGINE_TESTING_H_

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <memory>
#include <span>
#include <string_view>
#include <thread>
#include <utility>

#include "runtime/device/nvme/io_engine.h"

namespace trireme {

// What happens to each request while it is set.
enum class DriveFault {
  kNone,
  kBroken,  // EIO
  kFull,    // writes: ENOSPC
  kTorn,    // writes: only the first half reaches the drive, which says all did
  kShort,   // half of what is asked for is moved, and told
  kEnds,    // reads: nothing is there
  kSlow,
};

class FaultyEngine final : public IoEngine {
 public:
  // `fault` outlives it.
  FaultyEngine(std::unique_ptr<IoEngine> engine,
               const std::atomic<DriveFault>& fault)
      : engine_(std::move(engine)), fault_(fault) {}

  std::string_view name() const override { return engine_->name(); }
  void Start(const IoRequest& request) override {
    const DriveFault fault = fault_;
    Told& told = told_[request.id];
    told = {};
    IoRequest real = request;
    const bool tears = fault == DriveFault::kTorn && request.write;
    if (tears) told.moved = request.bytes;
    if (tears || (fault == DriveFault::kShort && request.bytes > kLeastBytes)) {
      real.bytes /= 2;
    }
    if (fault == DriveFault::kBroken) told.moved = -EIO;
    if (fault == DriveFault::kFull && request.write) told.moved = -ENOSPC;
    if (fault == DriveFault::kEnds && !request.write) told.moved = 0;
    if (fault == DriveFault::kSlow) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    engine_->Start(real);
  }
  IoResult Finish() override {
    IoResult result = engine_->Finish();
    if (told_[result.id].moved != kTruth) {
      result.bytes = told_[result.id].moved;
    }
    return result;
  }
  bool Register(std::span<const std::span<std::byte>> memory) override {
    return engine_->Register(memory);
  }

 private:
  static constexpr int64_t kTruth = 1;
  static constexpr int64_t kLeastBytes = 8192;
  struct Told {
    int64_t moved = kTruth;
  };

  const std::unique_ptr<IoEngine> engine_;
  const std::atomic<DriveFault>& fault_;
  std::array<Told, kDepth> told_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_NVME_FAULTY_ENGINE_TESTING_H_
