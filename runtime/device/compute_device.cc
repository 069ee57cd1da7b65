#include "runtime/device/compute_device.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>
#include <vector>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/cuda/gpus.h"

namespace trireme {
namespace {

constexpr std::string_view kCpu = "cpu";
constexpr std::string_view kCuda = "cuda";

// Of the first GPUs with products of FP8.
constexpr int kFloat8Capability = 89;

// N of "cuda:N".
absl::StatusOr<std::optional<int>> GpuOf(std::string_view text) {
  if (text.empty() || text == kCuda) return std::nullopt;
  int gpu = -1;
  if (text.starts_with("cuda:")) {
    const std::string_view digits = text.substr(5);
    const char* const end = digits.data() + digits.size();
    const auto [stop, error] = std::from_chars(digits.data(), end, gpu);
    if (error != std::errc() || stop != end) gpu = -1;
  }
  if (gpu < 0) {
    return InvalidArgument("found '{}', expected cpu, cuda or cuda:N", text);
  }
  return gpu;
}

}  // namespace

absl::StatusOr<ComputeDevice> ComputeDevice::Choose(std::string_view text,
                                                    int local_rank,
                                                    int local_ranks) {
  ComputeDevice device;
  if (text == kCpu) return device;
  ASSIGN_OR_RETURN(const std::optional<int> asked, GpuOf(text));
  const absl::StatusOr<std::vector<CudaGpu>> gpus = FindCudaGpus();
  if (!gpus.ok()) {
    if (!text.empty()) {
      return FailedPrecondition("found '{}': {}", text,
                                MessageOf(gpus.status()));
    }
    device.text_ = fmt::format("cpu: {}", MessageOf(gpus.status()));
    return device;
  }
  const int count = static_cast<int>(gpus->size());
  if (asked.value_or(0) >= count) {
    return InvalidArgument("found '{}', expected cuda:0 to cuda:{}", text,
                           count - 1);
  }
  device.kind_ = DeviceKind::kCuda;
  device.gpu_ = asked.value_or(local_rank % count);
  const int sharers =
      asked.has_value() ? local_ranks : (local_ranks + count - 1) / count;
  const CudaGpu& gpu = (*gpus)[device.gpu_];
  device.gpu_id_ = gpu.id;
  device.multiplies_float8_ = gpu.compute_capability >= kFloat8Capability;
  device.text_ = fmt::format("cuda:{} ({})", device.gpu_, gpu.name);
  // Others of this machine may have taken their shares already.
  device.memory_bytes_ = std::min(FreeBytesOfCudaGpu(device.gpu_),
                                  gpu.memory_bytes / std::max(1, sharers)) /
                         10 * 9;
  return device;
}

std::unique_ptr<Device> ComputeDevice::Make(
    int64_t limit_bytes, const KernelLibraries& libraries) const {
  if (kind_ == DeviceKind::kCuda) {
    return MakeCudaDevice(gpu_, limit_bytes, CudaDevice::Memory::kPlain,
                          libraries);
  }
  return std::make_unique<CpuDevice>(limit_bytes);
}

std::unique_ptr<Device> MakeDryDevice(DeviceKind kind,
                                      const KernelLibraries& libraries) {
  if (kind == DeviceKind::kCuda) return MakeDryCudaDevice(libraries);
  return std::make_unique<CpuDevice>(std::numeric_limits<int64_t>::max(),
                                     CpuDevice::Mode::kDry);
}

}  // namespace trireme
