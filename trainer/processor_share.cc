#include "trainer/processor_share.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace trireme {

ProcessorShare FindProcessorShare(Control& control, int local_ranks) {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int64_t> usable(CPU_SETSIZE, 0);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int i = 0; i < CPU_SETSIZE; ++i) usable[i] = CPU_ISSET(i, &set);
  }
  control.Max(std::span(usable), "processors");
  ProcessorShare share;
  share.processors = std::max<int>(
      1, static_cast<int>(std::count(usable.begin(), usable.end(), 1)));
  share.ranks = local_ranks;
  share.threads = omp_get_max_threads();
  return share;
}

}  // namespace trireme
