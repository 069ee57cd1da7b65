// Samples of the trained model in its run's folder, beside the metrics that
// led to them.

#ifndef TRIREME_TRAINER_SAMPLING_DRAW_AT_END_H_
#define TRIREME_TRAINER_SAMPLING_DRAW_AT_END_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/comm/communicator.h"
#include "runtime/device/compute_device.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/job/job.pb.h"
#include "trainer/rank/training_setup.h"
#include "trainer/run/run_folder.h"
#include "trainer/sampling/draw_samples.h"

namespace trireme {

// The bytes that a rank needs to draw when training ends, 0 if nothing is to be
// drawn, can be under the plan, or the model that trains draws itself, as with
// offload (trainer/evaluation). Errors: more than `limit`; latents without an
// autoencoder that decodes them.
absl::StatusOr<int64_t> PredictDrawingAtEnd(const Job& job,
                                            const TrainingSetup& setup,
                                            const Plan& plan, int rank,
                                            DeviceKind kind, int64_t limit);

struct DrawnAtEnd {
  std::string path;  // of the PNG
  DrawReport report;
};

// Draws what the model is after `step`. `stop`: DrawOptions'. Collective over
// the world; complete on rank 0.
absl::StatusOr<DrawnAtEnd> DrawAtEnd(const RunFolder& folder, int64_t step,
                                     const ComputeDevice& device,
                                     int local_ranks,
                                     CommunicatorFactory& factory,
                                     std::function<bool()> stop);

}  // namespace trireme

#endif  // TRIREME_TRAINER_SAMPLING_DRAW_AT_END_H_
