// How far a run's measured memory is from what was predicted before it.

#ifndef TRIREME_TRAINER_MEMORY_DEVIATION_H_
#define TRIREME_TRAINER_MEMORY_DEVIATION_H_

#include "runtime/comm/communicator.h"
#include "runtime/device/device.h"

namespace trireme {

struct MemoryDeviation {
  // |measured - predicted| / predicted of a category's peak; a category that is
  // less than 1 MiB, or than a thousandth of the rank's peak, counts as that.
  double share = 0;
  int rank = 0;
  MemoryCategory category = MemoryCategory::kParameters;
};

// The largest of all ranks and categories. Collective over the world; `device`
// holds its few bytes.
MemoryDeviation LargestMemoryDeviation(const MemoryStatistics& measured,
                                       const MemoryStatistics& predicted,
                                       Communicator& world, Device& device);

}  // namespace trireme

#endif  // TRIREME_TRAINER_MEMORY_DEVIATION_H_
