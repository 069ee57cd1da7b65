// What an emulated GPU is given and has not done yet. Nothing runs until
// somebody waits for it, or a seed lets it: work that is not ordered by a
// stream or an event is done in the order that the caller did not think of.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_STREAMS_H_
#define TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_STREAMS_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/device/cuda/emulation/fiber.h"
#include "runtime/device/cuda/emulation/races.h"

namespace trireme::cuda_emulation {

enum class Schedule {
  kLazy,    // only what is waited for, as late as can be
  kRandom,  // anything that may run, by the seed
  kEager,   // each thing when it is given
};

class Queue;

// After the first `count` operations of a queue, which lives until then.
struct Point {
  std::shared_ptr<Queue> queue;
  uint64_t count = 0;
};

// An operation that is done only together with operations of other queues: a
// library's exchange of messages between ranks.
class Meeting {
 public:
  virtual ~Meeting() = default;
  // It has been given to a queue, which comes to it at the point.
  virtual void Place(const Point& before) = 0;
  enum class Step { kWaits, kMoved, kDone };
  // Its queue has come to it, now or before.
  virtual Step Arrive() = 0;
  // Where the queues of those that it waits for come to them; some may not have
  // been given yet.
  virtual std::vector<Point> Awaited() const = 0;
};

// One stream.
class Queue {
 public:
  // `owner` drives it.
  explicit Queue(std::thread::id owner) : owner_(owner) {}
  ~Queue() { race_thread_.Destroy(); }
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  // The operation runs after what the queue was given before.
  void Add(std::function<void()> operation) {
    Push({std::move(operation), {}, nullptr});
  }
  // `self` is the queue.
  void Add(const std::shared_ptr<Queue>& self,
           std::shared_ptr<Meeting> meeting) {
    meeting->Place({self, added_});
    Push({[] {}, {}, std::move(meeting)});
  }
  // What it is given from now on runs after the point.
  void Wait(Point point) {
    Push({[] {}, std::move(point), nullptr});
  }
  uint64_t added() const { return added_; }
  uint64_t done() const { return done_; }

 private:
  friend class Scheduler;
  struct Operation {
    std::function<void()> run;
    Point after;
    std::shared_ptr<Meeting> meeting;  // mostly null
    OrderPoint given;
  };

  // Does what is the queue's to do as its thread.
  void Do(const std::function<void()>& work) const;

  void Push(Operation operation) {
    operation.given.Release();
    operations_.push_back(std::move(operation));
    ++added_;
  }

  const std::thread::id owner_;
  std::deque<Operation> operations_;
  uint64_t added_ = 0;
  uint64_t done_ = 0;
  // Somebody further up the stack is about to reach a point of it.
  bool reaching_ = false;
  RaceThread race_thread_ = RaceThread::Create();
  // A stack is one thread's to ThreadSanitizer; null without it.
  const std::unique_ptr<Fiber> stack_ =
      FindsRaces() ? std::make_unique<Fiber>(0) : nullptr;
  OrderPoint operations_done_;
};

// One thread at a time.
class Scheduler {
 public:
  Scheduler() { Use(Schedule::kLazy, 0); }
  // Of what is given from now on.
  void Use(Schedule schedule, uint64_t seed);
  // How threads of a block take turns, for RunGrid.
  uint64_t DrawThreadOrder();

  std::shared_ptr<Queue> NewQueue();
  void RemoveQueue(const std::shared_ptr<Queue>& queue);

  static bool Reached(const Point& point) {
    return point.queue == nullptr || point.queue->done() >= point.count;
  }
  // The calling thread, which has waited for the point, goes on after it.
  static void GoOnAfter(const Point& point) {
    if (point.queue != nullptr) point.queue->operations_done_.Acquire();
  }
  // Runs what the point needs, and under kRandom other things. False where it
  // needs what no thread has given yet.
  bool Reach(const Point& point);
  // All that the calling thread's queues were given.
  bool ReachOwn();
  // Called whenever the host has given the device something.
  void Progress();
  // Blocks until another thread, to which it leaves the scheduler, has given or
  // done something.
  void AwaitOthers(std::unique_lock<std::mutex>& lock) { changed_.wait(lock); }

 private:
  // Whether the queue's first operation may run, which it has come to.
  bool Arrive(const Queue& queue);
  Meeting::Step Meet(const Queue& queue);
  void RunFirst(Queue& queue);
  // Has others come to where the meeting needs them, as far as they can.
  void Bring(const Meeting& meeting);
  // False where nothing may run.
  bool RunRandom();
  // Runs the first operation; false where it may not run yet.
  bool ReachFirst(Queue& queue);

  std::condition_variable changed_;
  Schedule schedule_ = Schedule::kLazy;
  std::minstd_rand random_;
  uint32_t progress_percent_ = 0;
  std::vector<std::shared_ptr<Queue>> queues_;
  OrderPoint messages_;
};

}  // namespace trireme::cuda_emulation

#endif  // TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_STREAMS_H_
