#include "runtime/device/cuda/emulation/races.h"

// ThreadSanitizer's own functions, which programs without it do not have.
extern "C" {
[[gnu::weak]] void* __tsan_get_current_fiber();
[[gnu::weak]] void* __tsan_create_fiber(unsigned flags);
[[gnu::weak]] void __tsan_destroy_fiber(void* fiber);
[[gnu::weak]] void __tsan_switch_to_fiber(void* fiber, unsigned flags);
[[gnu::weak]] void __tsan_acquire(void* place);
[[gnu::weak]] void __tsan_release(void* place);
[[gnu::weak]] void __tsan_func_entry(void* caller);
[[gnu::weak]] void __tsan_func_exit();
}

namespace trireme::cuda_emulation {
namespace {

constexpr unsigned kWithoutOrder = 1;

}  // namespace

bool FindsRaces() { return __tsan_get_current_fiber != nullptr; }

RaceThread RaceThread::Current() {
  return RaceThread(FindsRaces() ? __tsan_get_current_fiber() : nullptr);
}

RaceThread RaceThread::Create() {
  return RaceThread(FindsRaces() ? __tsan_create_fiber(0) : nullptr);
}

void RaceThread::Destroy() {
  if (FindsRaces()) __tsan_destroy_fiber(fiber_);
}

void RaceThread::Enter() const {
  if (FindsRaces()) __tsan_switch_to_fiber(fiber_, kWithoutOrder);
}

void RaceThread::Advance(int steps) const {
  if (!FindsRaces()) return;
  for (int i = 0; i < steps; ++i) {
    __tsan_func_entry(fiber_);
    __tsan_func_exit();
  }
}

OrderPoint::OrderPoint() : place_(FindsRaces() ? new char : nullptr) {}

void OrderPoint::Release() const {
  if (FindsRaces()) __tsan_release(place_.get());
}

void OrderPoint::Acquire() const {
  if (FindsRaces()) __tsan_acquire(place_.get());
}

}  // namespace trireme::cuda_emulation
