// Which device a rank computes with, as its user says it: the host's processor,
// or one of the GPUs.

#ifndef TRIREME_RUNTIME_DEVICE_COMPUTE_DEVICE_H_
#define TRIREME_RUNTIME_DEVICE_COMPUTE_DEVICE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "runtime/device/device.h"
#include "runtime/device/kernel_libraries.h"

namespace trireme {

enum class DeviceKind { kCpu, kCuda };

class ComputeDevice {
 public:
  // The host's processor.
  ComputeDevice() = default;

  // `text` is "cpu", "cuda" (the machine's ranks take its GPUs in turn),
  // "cuda:N" (GPU N for all of them), or empty: GPUs in turn where there are
  // any, else the processor. Errors: another text, a GPU that is not there.
  static absl::StatusOr<ComputeDevice> Choose(std::string_view text,
                                              int local_rank, int local_ranks);

  DeviceKind kind() const { return kind_; }
  // "cpu", "cuda:0 (NVIDIA H100 80GB HBM3)"; of a processor that was not asked
  // for also why there is no GPU.
  const std::string& text() const { return text_; }
  // Its index in this process, and what tells it from all others, of this
  // machine or another; of a processor empty.
  int gpu() const { return gpu_; }
  const std::string& gpu_id() const { return gpu_id_; }
  // What a rank may hold of a GPU's memory unless its user says otherwise: nine
  // tenths of its share, or of what is free where that is less.
  int64_t memory_bytes() const { return memory_bytes_; }
  // Whether it multiplies FP8: a GPU of compute capability 8.9 or more does; a
  // processor computes the same numbers in other types.
  bool multiplies_float8() const { return multiplies_float8_; }

  std::unique_ptr<Device> Make(int64_t limit_bytes,
                               const KernelLibraries& libraries) const;

 private:
  DeviceKind kind_ = DeviceKind::kCpu;
  int gpu_ = 0;
  std::string gpu_id_;
  std::string text_ = "cpu";
  int64_t memory_bytes_ = 0;
  bool multiplies_float8_ = true;
};

// A device that counts what one of the kind would hold and compute, and does
// neither.
std::unique_ptr<Device> MakeDryDevice(DeviceKind kind,
                                      const KernelLibraries& libraries);

// What `device` is, or counts for.
inline DeviceKind DeviceKindOf(const Device& device) {
  return device.on_host() ? DeviceKind::kCpu : DeviceKind::kCuda;
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_COMPUTE_DEVICE_H_
