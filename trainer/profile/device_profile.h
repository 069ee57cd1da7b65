// How fast devices compute, copy, and do both at once.

#ifndef TRIREME_TRAINER_PROFILE_DEVICE_PROFILE_H_
#define TRIREME_TRAINER_PROFILE_DEVICE_PROFILE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/comm/communicator.h"
#include "runtime/device/compute_device.h"
#include "runtime/device/device.h"

namespace trireme {

// FLOP/s of large matrix products, a multiply-add as two; bytes/s.
enum DeviceRate : size_t {
  kBFloat16Flops,
  kFloat32Flops,
  kFloat64Flops,
  // Of GPUs; 0: it has none of its own.
  kTf32Flops,
  kFloat8Flops,
  // Of element-wise kernels, reads and writes together, on the device, and of
  // the host's processors on the host.
  kMemoryBytes,
  kHostMemoryBytes,
  // Of pinned memory where the device is a GPU.
  kToDeviceBytes,
  kToHostBytes,
  // Seconds between the beginnings of kernels that have nothing to do. 0: of
  // processors, which have no launches.
  kLaunchSeconds,
  // How many times as long a product takes beside copies from the host, and
  // beside reductions of all ranks. At least 1.
  kBesideCopies,
  kBesideReductions,
  // Of the products and element-wise kernels, the widest.
  kRateSpread,
  kNumDeviceRates,
};

struct DeviceProfileOptions {
  // Each time is the median of so many.
  int repetitions = 9;
  // Of the large products. 0: 1,024 of processors; of GPUs the first power of
  // two from there on whose product takes 2 ms, at most 8,192.
  int64_t product_side = 0;
  // Of what element-wise kernels and copies move.
  int64_t bytes = 64 << 20;
};

struct DeviceRates {
  // Of the large products, and of small ones.
  int64_t product_side = 0;
  std::vector<int64_t> small_sides;
  // By rank: each DeviceRate, then the fp32 FLOP/s of each small side.
  std::vector<std::vector<double>> of_rank;
};

// Collective over the factory's world; all ranks compute at once, as they do in
// a job. Times are by the device's clock. `kind` is what `device` is.
// ResourceExhausted: the system pins too little memory.
absl::StatusOr<DeviceRates> MeasureDeviceRates(
    const DeviceProfileOptions& options, const ComputeDevice& kind,
    Device& device, CommunicatorFactory& factory, Communicator& world);

}  // namespace trireme

#endif  // TRIREME_TRAINER_PROFILE_DEVICE_PROFILE_H_
