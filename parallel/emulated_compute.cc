#include "parallel/emulated_compute.h"

#include <algorithm>
#include <chrono>
#include <thread>

namespace trireme {

void EmulatedCompute::Elapse(double seconds) {
  using Clock = std::chrono::steady_clock;
  // Shorter than the system sleeps at all: collected until it is worth it.
  constexpr double kShortest = 50e-6;
  const double wanted = seconds - late_;
  if (wanted < kShortest) {
    late_ = -wanted;
    return;
  }
  const auto start = Clock::now();
  std::this_thread::sleep_for(std::chrono::duration<double>(wanted));
  late_ = std::chrono::duration<double>(Clock::now() - start).count() - wanted;
}

}  // namespace trireme
