// What the process that launched a job knows of it: the last report of each
// rank, the last steps, and the orders that people gave.

#ifndef TRIREME_TRAINER_COORDINATOR_JOB_WATCH_H_
#define TRIREME_TRAINER_COORDINATOR_JOB_WATCH_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/coordinator/coordinator.pb.h"

namespace trireme {

// Thread-safe.
class JobWatch {
 public:
  using Clock = std::chrono::steady_clock;

  // `folder`: the run's.
  JobWatch(std::string folder, Clock::time_point now);

  // The ranks are started (again), or found as `start` left them: none has
  // reported yet.
  void Begin(int64_t start);

  // Errors: InvalidArgument, a rank outside of its world; FailedPrecondition,
  // one of another start, which is to end.
  absl::StatusOr<OrdersSoFar> Report(const RankReport& report,
                                     Clock::time_point now);
  absl::Status GiveOrder(Order::Kind kind);
  JobStatus Status(Clock::time_point now) const;

  // How long nobody of those who have reported has done so, or since all that
  // did have ended: then there is nothing left to wait for. Nothing before the
  // first report.
  std::optional<Clock::duration> AllSilentFor(Clock::time_point now) const;

  // The ranks that have been silent for longer than `limit`, other than by
  // ending.
  std::vector<RankReport> SilentFor(Clock::time_point now,
                                    Clock::duration limit) const;
  // Silence counts from now on: until now nobody could be heard.
  void Excuse(Clock::time_point now);

  // Whether a rank has failed, since they began, for a reason of its own that
  // would come again. One that may pass is such if they had done a step: they
  // have tried again themselves then (Saving).
  bool AnyFailedForGood() const;
  // Whether all ranks have come to a good end.
  bool AllEnded() const;
  // Whether a step has been done since they began.
  bool Training() const;
  // The last step that was reported.
  int64_t last_step() const;

  // The ranks that have come to be silent for longer than `limit` since the
  // last call, other than by ending.
  std::vector<RankReport> NewlySilent(Clock::time_point now,
                                      Clock::duration limit);

 private:
  struct Rank {
    RankReport report;
    Clock::time_point heard;
    bool called_silent = false;
  };

  const std::string folder_;
  const Clock::time_point begin_;
  mutable std::mutex mutex_;
  int64_t start_ = 0;
  std::map<int32_t, Rank> ranks_;
  std::deque<StepFigures> steps_;
  OrdersSoFar orders_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_COORDINATOR_JOB_WATCH_H_
