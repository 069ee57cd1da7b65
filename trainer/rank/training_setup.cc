#include "trainer/rank/training_setup.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace trireme {

double LearningRateSchedule::At(int64_t step) const {
  if (step <= warmup_steps) {
    return peak * static_cast<double>(step) / static_cast<double>(warmup_steps);
  }
  const double progress =
      static_cast<double>(step - warmup_steps) /
      static_cast<double>(std::max<int64_t>(total_steps - warmup_steps, 1));
  double left = 1;
  switch (decay) {
    case Decay::kConstant:
      return peak;
    case Decay::kCosine:
      left = 0.5 * (1.0 + std::cos(std::numbers::pi * std::min(progress, 1.0)));
      break;
    case Decay::kLinear:
      left = 1.0 - std::min(progress, 1.0);
      break;
  }
  return final + (peak - final) * left;
}

}  // namespace trireme
