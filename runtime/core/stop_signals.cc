#include "runtime/core/stop_signals.h"

#include <array>
#include <atomic>

#include "runtime/core/log.h"

namespace trireme {
namespace {

constexpr std::array kSignals = {SIGTERM, SIGINT, SIGUSR1};

// A handler has no other way to its object.
std::atomic<int> first_signal = 0;
static_assert(std::atomic<int>::is_always_lock_free);

void Note(int signal) {
  int none = 0;
  if (first_signal.compare_exchange_strong(none, signal)) return;
  // Linux tells of a parent's death once for each of its threads.
  if (signal == SIGUSR1) return;
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

}  // namespace

StopSignals::StopSignals() {
  first_signal = 0;
  struct sigaction action {};
  action.sa_handler = Note;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (const int signal : kSignals) {
    before_.emplace_back();
    CHECK_EQ(sigaction(signal, &action, &before_.back()), 0);
  }
}

StopSignals::~StopSignals() {
  for (size_t i = 0; i < kSignals.size(); ++i) {
    sigaction(kSignals[i], &before_[i], nullptr);
  }
}

int StopSignals::received() const { return first_signal; }

}  // namespace trireme
