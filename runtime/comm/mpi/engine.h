// What moves the operations of one process: whoever waits for any of them
// advances all, so that ranks may wait in different orders; and, while
// operations of background communicators are under way, a thread of its own.
//
// All MPI calls are made under the engine's mutex: MPI itself never sees two
// threads at once. Thread-safe.

#ifndef TRIREME_RUNTIME_COMM_MPI_ENGINE_H_
#define TRIREME_RUNTIME_COMM_MPI_ENGINE_H_

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/comm/wait_registry.h"

namespace trireme {

// An operation as the engine sees it.
class MpiTask {
 public:
  // `owner`: for MpiEngine::Drain. `note`: for the report of a hang.
  MpiTask(const void* owner, bool background,
          std::shared_ptr<const OperationNote> note)
      : owner_(owner), background_(background), note_(std::move(note)) {}
  virtual ~MpiTask() = default;
  MpiTask(const MpiTask&) = delete;
  MpiTask& operator=(const MpiTask&) = delete;

  bool background() const { return background_; }
  bool done() const { return done_.load(std::memory_order_acquire); }
  const OperationNote& note() const { return *note_; }

 protected:
  enum class Step { kWaits, kMoved, kDone };
  // Does what can be done without blocking. Under the engine's mutex.
  virtual Step Advance() = 0;

 private:
  friend class MpiEngine;
  const void* const owner_;
  const bool background_;
  const std::shared_ptr<const OperationNote> note_;
  std::atomic<bool> done_ = false;
};

class MpiEngine {
 public:
  // `crowded`: there are more ranks than processors on this machine.
  // `synchronous_sends`: MpiWorldOptions. After MPI_Init.
  MpiEngine(int world_rank, std::chrono::nanoseconds deadline, bool crowded,
            bool synchronous_sends);
  // Every task is done by then.
  ~MpiEngine();
  MpiEngine(const MpiEngine&) = delete;
  MpiEngine& operator=(const MpiEngine&) = delete;

  // What this rank has started and waits in. Who watches it (MpiWatchdog) ends
  // the job when a wait passes its deadline.
  WaitRegistry& registry() { return registry_; }
  std::chrono::nanoseconds deadline() const { return deadline_; }
  bool synchronous_sends() const { return synchronous_sends_; }
  // MPI's own, which differs by transport.
  int max_tag() const { return max_tag_; }

  void Start(std::shared_ptr<MpiTask> task);
  void Wait(const MpiTask& task);
  // Waits for all tasks of `owner` that nobody waited for, but not for long:
  // where a rank gives up on an error they will never be done.
  void Drain(const void* owner);
  bool Test(const MpiTask& task);

  // Runs `f`, which calls MPI, under the engine's mutex.
  template <typename F>
  void Exclusively(F&& f) {
    Caller caller(*this);
    std::forward<F>(f)();
  }
  // The same, unless another thread is at it: then false.
  template <typename F>
  bool TryExclusively(F&& f) {
    std::unique_lock lock(mutex_, std::defer_lock);
    if (!parked_.load(std::memory_order_acquire) && !lock.try_lock()) {
      return false;
    }
    std::forward<F>(f)();
    return true;
  }

  // Under the mutex (from MpiTask::Advance): an error of communication, which
  // ends the job. Leaves MPI to the watchdog, which reports the error with
  // what all ranks are doing.
  [[noreturn]] void Fail(std::string text);
  // Fails with MPI's own text unless `result` is MPI_SUCCESS.
  void Check(int result, std::string_view what);

 private:
  // The mutex, with the background thread kept away.
  class Caller {
   public:
    explicit Caller(MpiEngine& engine) : engine_(engine) {
      engine_.callers_.fetch_add(1);
      engine_.mutex_.lock();
    }
    ~Caller() {
      engine_.mutex_.unlock();
      engine_.callers_.fetch_sub(1);
    }
    Caller(const Caller&) = delete;
    Caller& operator=(const Caller&) = delete;

   private:
    MpiEngine& engine_;
  };

  // Advances every task once; true if any moved. Lets go of those that are
  // done, all before the mutex is unlocked: whoever has seen the mutex after
  // a task was done knows that its tensors are the caller's alone.
  bool Poll();
  void RunInBackground();
  // Polls until `done()`, which is called under the mutex.
  void PollUntil(const std::function<bool()>& done);

  const std::chrono::nanoseconds deadline_;
  const bool crowded_;
  const bool synchronous_sends_;
  const int max_tag_;
  WaitRegistry registry_;
  std::mutex mutex_;
  // The thread that holds mutex_ has failed and does nothing more.
  std::atomic<bool> parked_ = false;
  // Threads other than the background one that poll or want to.
  std::atomic<int> callers_ = 0;
  // Guarded by mutex_.
  std::vector<std::shared_ptr<MpiTask>> tasks_;
  int background_tasks_ = 0;
  int64_t background_started_ = 0;
  bool stopping_ = false;
  std::condition_variable work_;
  std::thread thread_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_MPI_ENGINE_H_
