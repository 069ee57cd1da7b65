#include "trainer/metrics/skipped_steps.h"

#include "runtime/core/status.h"

namespace trireme {

absl::Status SkippedSteps::Note(int64_t step, int64_t skipped,
                                double loss_scale, bool last) {
  const bool taken = skipped == skipped_;
  skipped_ = skipped;
  in_a_row_ = taken ? 0 : in_a_row_ + 1;
  any_taken_ = any_taken_ || taken;
  if (in_a_row_ < kMostInARow && (any_taken_ || !last)) return absl::OkStatus();
  return FailedPrecondition(
      "step {}: the gradients of the last {} steps overflowed, the last at a "
      "loss scale of {:g}, and none of them was taken; expected a lower "
      "loss_scaling.initial, or precision: BF16",
      step, in_a_row_, loss_scale);
}

}  // namespace trireme
