#include "trainer/job/memory_limit.h"

#include <unistd.h>

#include <algorithm>

#include "runtime/core/control_groups.h"

namespace trireme {

int64_t MemoryLimit(const Job& job, int local_ranks) {
  if (job.has_memory_limit_bytes()) {
    return static_cast<int64_t>(job.memory_limit_bytes());
  }
  return HostMemoryLimit(local_ranks);
}

int64_t MemoryLimit(const Job& job, const ComputeDevice& device,
                    int local_ranks) {
  if (device.kind() == DeviceKind::kCuda && !job.has_memory_limit_bytes()) {
    return device.memory_bytes();
  }
  return MemoryLimit(job, local_ranks);
}

int64_t HostMemoryLimit(int local_ranks) {
  const int64_t machine = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) *
                          static_cast<int64_t>(sysconf(_SC_PAGE_SIZE));
  const int64_t total =
      std::min(machine, LimitsOfControlGroups().memory_bytes.value_or(machine));
  return total / 4 * 3 / std::max(local_ranks, 1);
}

}  // namespace trireme
