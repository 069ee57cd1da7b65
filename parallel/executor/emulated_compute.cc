#include "parallel/executor/emulated_compute.h"

#include <algorithm>
#include <chrono>
#include <thread>

namespace trireme {

double EmulatedCompute::Now() const {
  if (time_ == Time::kVirtual) return virtual_s_;
  return std::chrono::duration<double>(Clock::now() - begin_).count() - late_;
}

double EmulatedCompute::Occupy(Resource resource, double ready,
                               double seconds) {
  double& free = free_[resource];
  free = std::max(free, ready) + seconds;
  return free;
}

void EmulatedCompute::Elapse(double seconds) {
  if (seconds <= 0) return;
  if (time_ == Time::kVirtual) {
    virtual_s_ += seconds;
    return;
  }
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
