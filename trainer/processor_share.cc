#include "trainer/processor_share.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace trireme {

ProcessorShare FindProcessorShare(Communicator& world, Device& device,
                                  int local_ranks) {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<uint8_t> usable(CPU_SETSIZE, 0);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int i = 0; i < CPU_SETSIZE; ++i) usable[i] = CPU_ISSET(i, &set);
  }
  const Tensor all =
      Tensor::FromValues<uint8_t>(device, {CPU_SETSIZE}, usable,
                                  MemoryCategory::kCommunication, "processors");
  world.AllReduce(all, ReduceOp::kMax, "processors").Wait();
  const uint8_t* of_all = all.data<uint8_t>();
  ProcessorShare share;
  share.processors = std::max<int>(
      1, static_cast<int>(std::count(of_all, of_all + CPU_SETSIZE, 1)));
  share.ranks = local_ranks;
  share.threads = omp_get_max_threads();
  return share;
}

}  // namespace trireme
