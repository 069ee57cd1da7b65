// How far a run's measured memory is from what was predicted before it.

#ifndef TRIREME_TRAINER_METRICS_MEMORY_DEVIATION_H_
#define TRIREME_TRAINER_METRICS_MEMORY_DEVIATION_H_

#include "runtime/comm/control.h"
#include "runtime/device/device.h"

namespace trireme {

// What a prediction says of what will be measured.
enum class MemoryPrediction {
  kExact,
  // No more than that. Of experts that ep divides a rank has as many rows as
  // are routed to its own; of pictures of several sizes a step has one's; what
  // comes between steps may not have been due.
  kBound
};

struct MemoryDeviation {
  // |measured - predicted| / predicted of a category's peak, of a bound where
  // it was passed; a category that is
  // less than 1 MiB, or than a thousandth of the rank's peak, counts as that.
  double share = 0;
  int rank = 0;
  MemoryCategory category = MemoryCategory::kParameters;
};

// The largest of all ranks and categories. Collective.
MemoryDeviation LargestMemoryDeviation(const MemoryStatistics& measured,
                                       const MemoryStatistics& predicted,
                                       MemoryPrediction kind, Control& control);

}  // namespace trireme

#endif  // TRIREME_TRAINER_METRICS_MEMORY_DEVIATION_H_
