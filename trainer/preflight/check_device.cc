#include "trainer/preflight/check_device.h"

#include "runtime/core/status.h"

namespace trireme {

absl::Status CheckDevice(const TrainingSetup& setup,
                         const ComputeDevice& device) {
  if (setup.float8.layers.empty() || device.multiplies_float8()) {
    return absl::OkStatus();
  }
  return FailedPrecondition(
      "fp8: found with {}, which has no products of FP8, expected a GPU of "
      "compute capability 8.9 or more (Ada, Hopper, Blackwell), or no fp8",
      device.text());
}

}  // namespace trireme
