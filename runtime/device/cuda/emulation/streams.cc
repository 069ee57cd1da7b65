#include "runtime/device/cuda/emulation/streams.h"

#include "runtime/core/log.h"

namespace trireme::cuda_emulation {

void Scheduler::Use(Schedule schedule, uint64_t seed) {
  schedule_ = schedule;
  random_.seed(static_cast<std::minstd_rand::result_type>(seed + 1));
  // From a device that is always behind to one that keeps up.
  progress_percent_ =
      schedule == Schedule::kRandom ? static_cast<uint32_t>(seed % 5) * 25 : 0;
}

uint64_t Scheduler::DrawThreadOrder() {
  return schedule_ == Schedule::kRandom ? random_() : random_() % 2;
}

std::shared_ptr<Queue> Scheduler::NewQueue() {
  return queues_.emplace_back(std::make_shared<Queue>());
}

void Scheduler::RemoveQueue(const std::shared_ptr<Queue>& queue) {
  Reach({queue, queue->added()});
  std::erase(queues_, queue);
}

bool Scheduler::Runnable(const Queue& queue) {
  return !queue.operations_.empty() && Reached(queue.operations_.front().after);
}

void Scheduler::RunFirst(Queue& queue) {
  const std::function<void()> run = std::move(queue.operations_.front().run);
  queue.operations_.pop_front();
  run();
  ++queue.done_;
}

bool Scheduler::RunRandom() {
  std::vector<Queue*> runnable;
  for (const auto& queue : queues_) {
    if (Runnable(*queue)) runnable.push_back(queue.get());
  }
  if (runnable.empty()) return false;
  RunFirst(*runnable[random_() % runnable.size()]);
  return true;
}

void Scheduler::Reach(const Point& point) {
  while (!Reached(point)) {
    if (schedule_ == Schedule::kRandom) {
      CHECK(RunRandom());
      continue;
    }
    Queue& queue = *point.queue;
    CHECK(!queue.operations_.empty());
    Reach(queue.operations_.front().after);
    RunFirst(queue);
  }
}

void Scheduler::ReachAll() {
  for (const auto& queue : queues_) Reach({queue, queue->added()});
}

void Scheduler::Progress() {
  if (schedule_ == Schedule::kEager) {
    ReachAll();
  } else if (random_() % 100 < progress_percent_) {
    RunRandom();
  }
}

}  // namespace trireme::cuda_emulation
