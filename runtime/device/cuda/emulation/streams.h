// What an emulated GPU is given and has not done yet. Nothing runs until
// somebody waits for it, or a seed lets it: work that is not ordered by a
// stream or an event is done in the order that the caller did not think of.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_STREAMS_H_
#define TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_STREAMS_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <utility>
#include <vector>

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

// One stream.
class Queue {
 public:
  // The operation runs after what the queue was given before.
  void Add(std::function<void()> operation) {
    operations_.push_back({std::move(operation), {}});
    ++added_;
  }
  // What it is given from now on runs after the point.
  void Wait(Point point) {
    operations_.push_back({[] {}, std::move(point)});
    ++added_;
  }
  uint64_t added() const { return added_; }
  uint64_t done() const { return done_; }

 private:
  friend class Scheduler;
  struct Operation {
    std::function<void()> run;
    Point after;
  };

  std::deque<Operation> operations_;
  uint64_t added_ = 0;
  uint64_t done_ = 0;
};

// Not thread-safe.
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
  // Runs what the point needs, and under kRandom other things.
  void Reach(const Point& point);
  void ReachAll();
  // Called whenever the host talks to the device.
  void Progress();

 private:
  static bool Runnable(const Queue& queue);
  static void RunFirst(Queue& queue);
  // False where nothing may run.
  bool RunRandom();

  Schedule schedule_ = Schedule::kLazy;
  std::minstd_rand random_;
  uint32_t progress_percent_ = 0;
  std::vector<std::shared_ptr<Queue>> queues_;
};

}  // namespace trireme::cuda_emulation

#endif  // TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_STREAMS_H_
