// What a job asks of the device that it computes on.

#ifndef TRIREME_TRAINER_PREFLIGHT_CHECK_DEVICE_H_
#define TRIREME_TRAINER_PREFLIGHT_CHECK_DEVICE_H_

#include "absl/status/status.h"
#include "runtime/device/compute_device.h"
#include "trainer/rank/training_setup.h"

namespace trireme {

// FailedPrecondition: products in FP8 (Job.fp8) on a GPU that has none.
absl::Status CheckDevice(const TrainingSetup& setup,
                         const ComputeDevice& device);

}  // namespace trireme

#endif  // TRIREME_TRAINER_PREFLIGHT_CHECK_DEVICE_H_
