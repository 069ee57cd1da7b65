// How a thread waits for messages: it polls for a while, then lets others run,
// then sleeps for a share of the time that it has already waited. On a crowded
// machine (more ranks than processors) it does not poll: each poll would be
// time that the awaited rank needs.

#ifndef TRIREME_RUNTIME_COMM_MPI_BACKOFF_H_
#define TRIREME_RUNTIME_COMM_MPI_BACKOFF_H_

#include <chrono>

namespace trireme {

class Backoff {
 public:
  explicit Backoff(bool crowded) : crowded_(crowded) { Reset(); }

  // Something moved: poll eagerly again.
  void Reset();
  // Nothing moved.
  void Pause();

 private:
  const bool crowded_;
  int polls_ = 0;
  std::chrono::steady_clock::time_point begin_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_MPI_BACKOFF_H_
