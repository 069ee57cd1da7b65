// A rank's side of the coordinator: reports several times a second, from a
// thread of its own, and hears what is ordered. Training never waits for it.

#ifndef TRIREME_TRAINER_COORDINATOR_RANK_REPORTER_H_
#define TRIREME_TRAINER_COORDINATOR_RANK_REPORTER_H_

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "trainer/coordinator/coordinator_client.h"
#include "trainer/step_metrics.h"
#include "trainer/train.h"

namespace trireme {

class RankReporter {
 public:
  // Calls `cut_off` from its thread, once, when nobody has answered for
  // `patience` and no step was done meanwhile: the launch has given this rank
  // up, and whom it waits for will not come.
  RankReporter(const CoordinatorAddress& address, int rank, int world_size,
               std::function<void()> cut_off = nullptr,
               std::chrono::seconds patience = std::chrono::seconds(60));
  ~RankReporter();

  // A step of `steps` is done.
  void Note(const StepMetrics& metrics, int64_t steps);
  // What was ordered since the last call; on rank 0, nothing elsewhere: a job's
  // orders reach its other ranks through it.
  Orders Take();
  // The rank's end, told before this returns if somebody hears it.
  void End(const absl::Status& status);

 private:
  void Run();
  // Reports once; without the lock, which it takes. Whether somebody heard it.
  bool Tell();

  CoordinatorClient client_;
  const std::function<void()> cut_off_;
  const std::chrono::seconds patience_;
  std::mutex telling_;  // locked before mutex_
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ending_ = false;
  // Somebody heard a report, or a step was done.
  std::chrono::steady_clock::time_point last_progress_ =
      std::chrono::steady_clock::now();
  RankReport report_;
  OrdersSoFar heard_, taken_;
  std::thread thread_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_COORDINATOR_RANK_REPORTER_H_
