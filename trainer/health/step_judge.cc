#include "trainer/health/step_judge.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "runtime/core/median.h"
#include "runtime/core/status.h"

namespace trireme {

void StepJudge::Remember(std::vector<double> losses) {
  losses_ = std::move(losses);
}

absl::Status StepJudge::Check(int64_t step, double loss,
                              double gradient_norm) const {
  constexpr char kFix[] =
      "lower optimizer.learning_rate, or use precision: FP32";
  if (!std::isfinite(loss)) {
    return FailedPrecondition("step {}: the loss is {}; expected a number ({})",
                              step, loss, kFix);
  }
  if (!overflow_is_usual_ && !std::isfinite(gradient_norm)) {
    return FailedPrecondition(
        "step {}: the gradient's norm is {} at a loss of {}; expected a number "
        "({})",
        step, gradient_norm, loss, kFix);
  }
  if (config_.spike_factor() == 0 || losses_.size() < kFewestLosses) {
    return absl::OkStatus();
  }
  const double usual = Median(losses_);
  if (loss <= config_.spike_factor() * usual) return absl::OkStatus();
  return FailedPrecondition(
      "step {}: the loss is {:.5g}, {:.3g} times the median of the {} before; "
      "expected at most {} times (health.spike_factor)",
      step, loss, loss / usual, losses_.size(), config_.spike_factor());
}

StepJudge::Verdict StepJudge::Decide(int64_t step, double loss,
                                     const absl::Status& trouble) {
  if (trouble.ok()) {
    left_out_in_a_row_ = 0;
    if (step > furthest_trouble_) roll_backs_ = 0;
    losses_.push_back(loss);
    if (losses_.size() > kMostLosses) losses_.erase(losses_.begin());
    return Verdict::kSound;
  }
  furthest_trouble_ = std::max(furthest_trouble_, step);
  switch (config_.on_bad_loss()) {
    case HealthConfig::SKIP:
      return ++left_out_in_a_row_ <= kMostLeftOutInARow ? Verdict::kLeaveOut
                                                        : Verdict::kStop;
    case HealthConfig::ROLL_BACK:
      return ++roll_backs_ <= kMostRollBacks ? Verdict::kRollBack
                                             : Verdict::kStop;
    default:
      return Verdict::kStop;
  }
}

}  // namespace trireme
