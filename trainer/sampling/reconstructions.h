// What an autoencoder of shapes gives back of shapes, and how near it is.

#ifndef TRIREME_TRAINER_SAMPLING_RECONSTRUCTIONS_H_
#define TRIREME_TRAINER_SAMPLING_RECONSTRUCTIONS_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/device/device.h"
#include "trainer/job/job.pb.h"
#include "trainer/sampling/sample_medium.h"

namespace trireme {

struct ReconstructionOptions {
  // A run's folder or a checkpoint's.
  std::string model;
  std::string out;  // a PNG; meshes beside it (ShapeMedium)
  // Whether files may be replaced that this program did not write.
  bool overwrite = false;
  int64_t most = 20;
  ShapeFiles shape_files;
  // Asked before each shape: Cancelled where it says so. Absent: never.
  std::function<bool()> stop;
};

struct ReconstructionReport {
  int64_t shapes = 0;
  std::string files;  // SampleMedium::FilesOf
  // Means over shapes, as lines for people: volume IoU at the data's uniform
  // points, and the error of truncated distances near surfaces, of occupancy
  // how often it errs there; Chamfer-L1 distance, F-score and normal
  // consistency (shape_metrics.h) of surfaces, and the same of a shape's
  // surface and itself, which is as good as they can be by so many points.
  std::string figures;
};

// Encodes the first readable shapes of the job's data, held-out ones if there
// are such, and decodes the means of their latents; of voxels at those of the
// shape, compared with the shape as they have it, thickened. Errors: no such
// model or data, nothing to give back, files that do not fit, out of memory.
absl::StatusOr<ReconstructionReport> DrawReconstructions(
    const ReconstructionOptions& options, const Data& data, Device& device);

}  // namespace trireme

#endif  // TRIREME_TRAINER_SAMPLING_RECONSTRUCTIONS_H_
