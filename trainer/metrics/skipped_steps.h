// Steps that fp16 leaves out because their gradients overflow. A few are how
// the loss scale is found; a run of nothing else trains nothing.

#ifndef TRIREME_TRAINER_METRICS_SKIPPED_STEPS_H_
#define TRIREME_TRAINER_METRICS_SKIPPED_STEPS_H_

#include <cstdint>

#include "absl/status/status.h"

namespace trireme {

class SkippedSteps {
 public:
  // From the default scale of 65536 it takes 32 to come to 1.
  static constexpr int64_t kMostInARow = 64;

  // `skipped`: steps left out in the run so far.
  explicit SkippedSteps(int64_t skipped) : skipped_(skipped) {}

  // After a step, with the steps left out so far and the loss scale that the
  // step had. `last`: no step follows. Errors: the last kMostInARow steps, or
  // all steps up to the last, were left out.
  absl::Status Note(int64_t step, int64_t skipped, double loss_scale,
                    bool last);

  // Steps left out since the last that was taken.
  int64_t in_a_row() const { return in_a_row_; }

 private:
  int64_t skipped_;
  int64_t in_a_row_ = 0;
  bool any_taken_ = false;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_METRICS_SKIPPED_STEPS_H_
