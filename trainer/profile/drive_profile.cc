#include "trainer/profile/drive_profile.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <limits>
#include <memory>
#include <span>
#include <system_error>
#include <vector>

#include "runtime/core/philox.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/nvme/aligned.h"
#include "runtime/device/nvme/nvme_device.h"
#include "runtime/device/tensor.h"
#include "runtime/ops/transfer.h"

namespace trireme {
namespace {

constexpr int kPhases = 3;
// Of a transfer, about a bucket's states.
constexpr int64_t kPieceElements = int64_t{16} << 20;

class DriveProfiler {
 public:
  DriveProfiler(CpuDevice& host, NvmeDevice& drive, int64_t bytes)
      : drive_(drive), pieces_(PiecesOf(bytes)) {
    std::vector<float> random(kPieceElements);
    RandomStream({.seed = 1}).FillUniform(0, std::span<float>(random));
    const Tensor values =
        Tensor::FromValues<float>(host, {kPieceElements}, random);
    for (Tensor* const buffer : {&to_write_, &to_read_}) {
      *buffer = EmptyAligned(host, kPieceElements, DType::kFloat32,
                             MemoryCategory::kWorkspace, "drive profile");
      buffer->CopyFrom(values);
      drive.Register(*buffer);
    }
    for (std::vector<Tensor>* const file : {&first_, &second_}) {
      for (int64_t i = 0; i < pieces_; ++i) {
        file->push_back(Tensor::Empty(drive, {kPieceElements}, DType::kFloat32,
                                      MemoryCategory::kOptimizer,
                                      "drive profile"));
      }
    }
  }

  static int64_t PiecesOf(int64_t bytes) {
    return std::max<int64_t>(
        1, bytes / DTypeSize(DType::kFloat32) / kPieceElements);
  }
  // Of both files.
  static int64_t FileBytes(int64_t bytes) {
    return 2 * PiecesOf(bytes) * kPieceElements * DTypeSize(DType::kFloat32);
  }

  double Write() {
    return Seconds([&] { GiveWrites(first_); });
  }
  double Read() {
    return Seconds([&] { GiveReads(first_); });
  }
  double Both() {
    return Seconds([&] {
      for (int64_t i = 0; i < pieces_; ++i) {
        GiveReads({first_[i]});
        GiveWrites({second_[i]});
      }
    });
  }

  // That each of these moves, one way.
  double bytes() const {
    return static_cast<double>(pieces_ * kPieceElements *
                               DTypeSize(DType::kFloat32));
  }

 private:
  void GiveWrites(const std::vector<Tensor>& file) {
    for (const Tensor& piece : file) {
      Transfer(to_write_, piece, drive_.stream(StreamKind::kCopyOut));
    }
  }
  void GiveReads(const std::vector<Tensor>& file) {
    for (const Tensor& piece : file) {
      Transfer(piece, to_read_, drive_.stream(StreamKind::kCopyIn));
    }
  }
  template <typename F>
  double Seconds(F&& give) {
    const auto start = std::chrono::steady_clock::now();
    give();
    drive_.Synchronize();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() -
                                         start)
        .count();
  }

  NvmeDevice& drive_;
  const int64_t pieces_;
  Tensor to_write_;
  Tensor to_read_;
  std::vector<Tensor> first_;
  std::vector<Tensor> second_;
};

}  // namespace

absl::StatusOr<DriveRates> MeasureDrive(const std::string& folder,
                                        int64_t bytes,
                                        const std::function<void()>& begin) {
  CpuDevice host(std::numeric_limits<int64_t>::max());
  DriveRates rates;
  {
    const absl::StatusOr<std::unique_ptr<NvmeDevice>> drive =
        NvmeDevice::Open({.folder = folder,
                          .bytes = DriveProfiler::FileBytes(bytes),
                          .owner = "the profile"},
                         host);
    if (!drive.ok()) {
      for (int phase = 0; phase < kPhases; ++phase) begin();
      return drive.status();
    }
    DriveProfiler profiler(host, **drive, bytes);
    rates.how = (*drive)->Describe();
    begin();
    rates.write_bytes_per_s = profiler.bytes() / profiler.Write();
    begin();
    rates.read_bytes_per_s = profiler.bytes() / profiler.Read();
    begin();
    rates.both_bytes_per_s = profiler.bytes() / profiler.Both();
    RETURN_IF_ERROR((*drive)->drive_status());
  }
  std::error_code error;
  const std::filesystem::space_info space =
      std::filesystem::space(folder, error);
  if (error) {
    return Unavailable("{}: cannot examine: {}", folder, error.message());
  }
  rates.free_bytes = static_cast<int64_t>(space.available);
  return rates;
}

}  // namespace trireme
