// What a rank has given to NCCL and is not done: a thread looks after it, so
// that a collective for which a rank does not come ends the job with the table
// of who waits for whom, wherever the host waits.

#ifndef TRIREME_RUNTIME_COMM_NCCL_NCCL_WATCH_H_
#define TRIREME_RUNTIME_COMM_NCCL_NCCL_WATCH_H_

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "runtime/comm/wait_registry.h"
#include "runtime/device/event.h"

namespace trireme {

class NcclWatch {
 public:
  // Of one communicator: what runs on its stream, in order.
  class Line {
   public:
    // `begun` is reached when the operation's operands are there, `done` when
    // it is.
    void Add(std::shared_ptr<const OperationNote> note, Event begun,
             Event done);

   private:
    friend class NcclWatch;
    struct Operation {
      std::shared_ptr<const OperationNote> note;
      Event begun, done;
      WaitRegistry::Clock::time_point since;
    };
    // Looks at the first operation; `late`: of an age from which the GPU is
    // asked.
    void Look(WaitRegistry& registry, std::chrono::nanoseconds late);

    std::mutex mutex_;
    // Guarded by mutex_.
    std::deque<Operation> operations_;
    std::optional<WaitRegistry::Wait> wait_;  // in the first
    // An error of NCCL's, or empty.
    std::function<std::string()> failure_;
  };

  explicit NcclWatch(const HangWatch& watch);
  ~NcclWatch();
  NcclWatch(const NcclWatch&) = delete;
  NcclWatch& operator=(const NcclWatch&) = delete;

  WaitRegistry& registry() { return *watch_.registry; }
  std::chrono::nanoseconds deadline() const { return watch_.deadline; }
  // `failure` says what error the communicator has met, or nothing. The line
  // lives until Remove.
  Line& NewLine(std::function<std::string()> failure);
  void Remove(Line& line);

 private:
  void Run();

  const HangWatch watch_;
  std::mutex mutex_;
  std::condition_variable stop_;
  // Guarded by mutex_.
  std::list<Line> lines_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_NCCL_NCCL_WATCH_H_
