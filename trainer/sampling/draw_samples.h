// Samples from a finished (or running) run, pictures or shapes, and how far
// they are from real ones.

#ifndef TRIREME_TRAINER_SAMPLING_DRAW_SAMPLES_H_
#define TRIREME_TRAINER_SAMPLING_DRAW_SAMPLES_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/data/dataset.h"
#include "models/family.h"
#include "models/sampling/flow_sampler.h"
#include "models/shape/mesh_parts.h"
#include "runtime/comm/communicator.h"
#include "runtime/device/compute_device.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/job/job.pb.h"
#include "trainer/rank/training_setup.h"

namespace trireme {

struct DrawOptions {
  std::string run;  // a run's folder
  std::string out;  // a PNG; of shapes, meshes too (ShapeMedium)
  // Whether files may be replaced that this program did not write.
  bool overwrite = false;
  // Absent: the newest checkpoint.
  std::optional<std::string> checkpoint;
  // Absent: the job's.
  std::optional<Solver> solver;
  std::optional<int64_t> steps;
  std::optional<double> guidance;
  std::optional<double> temperature;
  std::optional<int64_t> top_k;
  std::optional<double> top_p;
  std::optional<int64_t> per_class;
  // Captions to draw for. Empty: the job's.
  std::vector<std::string> prompts;
  // Of the grid: the first classes, or captions.
  int64_t max_rows = 20;
  uint64_t seed = 0;
  // The folder of the autoencoder that decodes latents. Absent: the job's.
  std::optional<std::string> autoencoder;
  // The folder of a run that draws where a sample's tokens lie, for models that
  // draw at places. Absent: those of the data set's samples.
  std::optional<std::string> places;
  // Of the pictures that are drawn. Absent: the job's, of several the first.
  std::optional<PictureSize> size;
  // The moving average of the weights where the run kept one.
  bool ema = true;
  // Of shapes that are made of a field, and of no other samples. Absent:
  // KeptParts::kTouching.
  std::optional<KeptParts> kept_parts;
  // Of shapes, and of no other samples. Absent: as ShapeFiles has them.
  std::optional<std::string> mesh_format;
  std::optional<int> turntable;
  // Samples drawn, without guidance, to compare with real ones; 0 = none.
  int64_t evaluate = 0;
  ComputeDevice device;
  // Ranks on this machine, which share its memory.
  int local_ranks = 1;
  // Asked on every rank, again and again: where one is told so, DrawSamples
  // ends with an error on all, and with Cancelled on that one. Absent, as then
  // on all ranks: it draws to the end.
  std::function<bool()> stop;
};

struct DrawReport {
  std::string checkpoint;
  int64_t samples = 0;
  std::string things;  // that they are: "pictures", "shapes"
  std::string files;   // SampleMedium::FilesOf
  // Of `evaluate` samples with real ones, and of a run with experts how evenly
  // its last steps used them: lines for people.
  std::string comparison;
  // This rank's most memory.
  int64_t peak_bytes = 0;
};

// Draws a labelled grid, a row a class (or a caption), and world rank 0 writes
// it. Collective over the factory's world, which is of one rank or of as many
// as the run's plan, under which they draw then; every rank reads its part of
// the checkpoint. The report is whole on rank 0. Errors, the same on all ranks:
// no such run, no complete checkpoint in it, files that do not fit, another
// number of ranks.
absl::StatusOr<DrawReport> DrawSamples(const DrawOptions& options,
                                       CommunicatorFactory& factory);

// The samples at whose voxels a run's are drawn: those that are held out; null
// where none are, or where the model draws at none.
absl::StatusOr<std::unique_ptr<Dataset>> OpenHeldOutVoxels(
    const ModelFamily& family, const Data& data);

// As the job says.
SamplerOptions SamplingOf(const SampleConfig& config,
                          const TrainingSetup& setup);
// The most rows that the grid of a job's samples has.
int64_t RowsOf(const SampleConfig& config, const ModelFamily& family);

// The memory that `rank` needs to draw a run's samples when its training ends,
// if nothing of the training is left by then.
absl::StatusOr<MemoryStatistics> PredictMemoryOfDrawing(
    const Job& job, const TrainingSetup& setup, const Plan& plan, int rank,
    DeviceKind kind);

}  // namespace trireme

#endif  // TRIREME_TRAINER_SAMPLING_DRAW_SAMPLES_H_
