#include "runtime/comm/mpi/backoff.h"

#include <sched.h>

#include <algorithm>
#include <thread>

namespace trireme {
namespace {

using std::chrono::microseconds;
using std::chrono::nanoseconds;

constexpr int kPollsBeforeYielding = 1000;
// A sleep costs the kernel's wake-up (some 60 µs): only when that is small
// against the wait so far.
constexpr nanoseconds kYieldFor = microseconds(300);
constexpr nanoseconds kYieldForUncrowded = microseconds(5000);
constexpr int kSleepShare = 16;
constexpr nanoseconds kLongestSleep = microseconds(500);

}  // namespace

void Backoff::Reset() { polls_ = 0; }

void Backoff::Pause() {
  ++polls_;
  if (polls_ == 1) begin_ = std::chrono::steady_clock::now();
  if (!crowded_ && polls_ < kPollsBeforeYielding) return;
  const nanoseconds waited = std::chrono::steady_clock::now() - begin_;
  if (waited < (crowded_ ? kYieldFor : kYieldForUncrowded)) {
    sched_yield();
  } else {
    std::this_thread::sleep_for(std::min(waited / kSleepShare, kLongestSleep));
  }
}

}  // namespace trireme
