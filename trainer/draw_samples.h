// Pictures from a finished (or running) run, and how far they are from real
// ones.

#ifndef TRIREME_TRAINER_DRAW_SAMPLES_H_
#define TRIREME_TRAINER_DRAW_SAMPLES_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "models/sampling/flow_sampler.h"
#include "trainer/job.pb.h"

namespace trireme {

struct DrawOptions {
  std::string run;  // a run's folder
  std::string out;  // a PNG
  // Absent: the newest checkpoint.
  std::optional<std::string> checkpoint;
  // Absent: the job's.
  std::optional<FlowSolver> solver;
  std::optional<int64_t> steps;
  std::optional<double> guidance;
  std::optional<int64_t> per_class;
  // Of the grid: the first classes, or captions.
  int64_t max_rows = 20;
  uint64_t seed = 0;
  // The moving average of the weights where the run kept one.
  bool ema = true;
  // Pictures drawn, without guidance, to measure the distance to real ones; 0 =
  // none.
  int64_t evaluate = 0;
};

struct DrawReport {
  std::string checkpoint;
  int64_t pictures = 0;
  // Whether the pictures compared with were held out from training, or are
  // other training pictures (Data.held_out).
  bool held_out = false;
  // Sliced Wasserstein distance of `evaluate` generated pictures to as many of
  // those, and of training pictures to the same: the floor.
  std::optional<double> distance;
  std::optional<double> floor;
  // Share of generated pictures whose three nearest training pictures vote
  // for the class they were drawn for.
  std::optional<double> class_accuracy;
};

// Draws a labelled grid, a row a class (or a caption), and writes it. Needs one
// process. Errors: no such run, no complete checkpoint in it, files that do not
// fit.
absl::StatusOr<DrawReport> DrawSamples(const DrawOptions& options);

}  // namespace trireme

#endif  // TRIREME_TRAINER_DRAW_SAMPLES_H_
