#include "trainer/training_setup.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace trireme {

double LearningRateSchedule::At(int64_t step) const {
  if (step <= warmup_steps) {
    return peak * static_cast<double>(step) / static_cast<double>(warmup_steps);
  }
  if (!cosine) return peak;
  const double progress =
      static_cast<double>(step - warmup_steps) /
      static_cast<double>(std::max<int64_t>(total_steps - warmup_steps, 1));
  return peak * 0.5 *
         (1.0 + std::cos(std::numbers::pi * std::min(progress, 1.0)));
}

}  // namespace trireme
