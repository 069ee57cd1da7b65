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

namespace trireme {

// An operation as the engine sees it.
class MpiTask {
 public:
  // `owner`: for MpiEngine::Drain.
  MpiTask(const void* owner, bool background)
      : owner_(owner), background_(background) {}
  virtual ~MpiTask() = default;
  MpiTask(const MpiTask&) = delete;
  MpiTask& operator=(const MpiTask&) = delete;

  bool background() const { return background_; }
  bool done() const { return done_.load(std::memory_order_acquire); }
  // For a report of a hang: operation, group, rank and pending peers.
  virtual std::string Describe() const = 0;

 protected:
  enum class Step { kWaits, kMoved, kDone };
  // Does what can be done without blocking. Under the engine's mutex.
  virtual Step Advance() = 0;

 private:
  friend class MpiEngine;
  const void* const owner_;
  const bool background_;
  std::atomic<bool> done_ = false;
};

class MpiEngine {
 public:
  // `crowded`: there are more ranks than processors on this machine.
  MpiEngine(std::chrono::nanoseconds deadline, bool crowded);
  // Every task is done by then.
  ~MpiEngine();
  MpiEngine(const MpiEngine&) = delete;
  MpiEngine& operator=(const MpiEngine&) = delete;

  void Start(std::shared_ptr<MpiTask> task);
  // Past the deadline: reports all tasks under way and ends the job.
  void Wait(const MpiTask& task);
  // Waits for all tasks of `owner` that nobody waited for, but not for long:
  // where a rank gives up on an error they will never be done.
  void Drain(const void* owner, std::string_view name);
  bool Test(const MpiTask& task);

  // Runs `f`, which calls MPI, under the engine's mutex.
  template <typename F>
  void Exclusively(F&& f) {
    Caller caller(*this);
    std::forward<F>(f)();
  }

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
  // Polls until `done()`, which is called under the mutex; past `deadline`
  // ends the job with a report of `what()` and of all tasks under way.
  void WaitUntil(const std::function<bool()>& done,
                 std::chrono::nanoseconds deadline,
                 const std::function<std::string()>& what);

  const std::chrono::nanoseconds deadline_;
  const bool crowded_;
  std::mutex mutex_;
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
