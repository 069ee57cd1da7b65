// A rank's side of the coordinator: reports several times a second, from a
// thread of its own, and hears what is ordered. Training never waits for it.

#ifndef TRIREME_TRAINER_COORDINATOR_RANK_REPORTER_H_
#define TRIREME_TRAINER_COORDINATOR_RANK_REPORTER_H_

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "runtime/core/timeouts.h"
#include "trainer/coordinator/coordinator_client.h"
#include "trainer/metrics/step_metrics.h"
#include "trainer/train.h"

namespace trireme {

class RankReporter {
 public:
  struct Options {
    CoordinatorOfRank coordinator;
    int rank = 0;
    int world_size = 1;
    // RankReport's.
    double peak_flops = 0;
    // Called from the reporter's thread, at most once, where this rank is
    // given up and whom it waits for will not come: the ranks were started
    // again without it, or, `hears_far` away, nobody has answered for
    // `timeouts.given_up` and no step was done meanwhile.
    std::function<void()> given_up;
    bool hears_far = false;
    // Where no process has listened for `orphaned`, the run is to save and end.
    Timeouts timeouts;
  };
  explicit RankReporter(Options options);
  ~RankReporter();

  // A step of `steps` is done.
  void Note(const StepMetrics& metrics, int64_t steps);
  // What was ordered since the last call; on rank 0, nothing elsewhere: a job's
  // orders reach its other ranks through it. A run that is orphaned is to stop.
  Orders Take();
  // The rank's end, told before this returns if somebody hears it.
  void End(const absl::Status& status);

 private:
  using Clock = std::chrono::steady_clock;

  void Run();
  // Reports once; without the lock, which it takes.
  void Tell();

  const Options options_;
  CoordinatorClient client_;
  std::mutex telling_;  // locked before mutex_
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ending_ = false;
  // Somebody heard a report, or a step was done.
  Clock::time_point last_progress_ = Clock::now();
  // A process listened, answering or not.
  Clock::time_point last_listened_ = Clock::now();
  bool refused_ = false;
  RankReport report_;
  OrdersSoFar heard_, taken_;
  std::thread thread_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_COORDINATOR_RANK_REPORTER_H_
