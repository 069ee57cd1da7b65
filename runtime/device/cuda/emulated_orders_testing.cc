#include "runtime/device/cuda/emulation/emulated_gpu.h"
#include "runtime/device/cuda/orders_testing.h"

namespace trireme {

void UseOrder(int order) {
  using cuda_emulation::Schedule;
  if (order == kLazyOrder) {
    cuda_emulation::UseSchedule(Schedule::kLazy, 0);
  } else {
    cuda_emulation::UseSchedule(Schedule::kRandom, order);
  }
}

}  // namespace trireme
