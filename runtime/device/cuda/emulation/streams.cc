#include "runtime/device/cuda/emulation/streams.h"

#include "runtime/core/log.h"

namespace trireme::cuda_emulation {

void Queue::Do(const std::function<void()>& work) const {
  const std::function<void()> as_queue = [this, &work] {
    const RaceThreadScope scope(race_thread_);
    work();
  };
  if (stack_ == nullptr) {
    as_queue();
    return;
  }
  stack_->Start(as_queue);
  CHECK(stack_->Resume()) << "a stream's work that waits";
}

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
  return queues_.emplace_back(
      std::make_shared<Queue>(std::this_thread::get_id()));
}

void Scheduler::RemoveQueue(const std::shared_ptr<Queue>& queue) {
  CHECK_EQ(queue->done(), queue->added());
  std::erase(queues_, queue);
}

bool Scheduler::Arrive(const Queue& queue) {
  if (queue.operations_.empty()) return false;
  const Queue::Operation& first = queue.operations_.front();
  if (!Reached(first.after)) return false;
  if (first.meeting == nullptr) return true;
  const Meeting::Step step = Meet(queue);
  if (step == Meeting::Step::kMoved) changed_.notify_all();
  return step == Meeting::Step::kDone;
}

Meeting::Step Scheduler::Meet(const Queue& queue) {
  const Queue::Operation& operation = queue.operations_.front();
  Meeting::Step step = Meeting::Step::kWaits;
  queue.Do([&] {
    operation.given.Acquire();
    // Messages order those who exchange them.
    messages_.Acquire();
    step = operation.meeting->Arrive();
    messages_.Release();
  });
  return step;
}

void Scheduler::RunFirst(Queue& queue) {
  Queue::Operation operation = std::move(queue.operations_.front());
  queue.operations_.pop_front();
  queue.Do([&] {
    operation.given.Acquire();
    GoOnAfter(operation.after);
    operation.run();
    // What it holds goes in the stream's order, too.
    operation.run = nullptr;
    operation.meeting = nullptr;
    queue.operations_done_.Release();
  });
  ++queue.done_;
  changed_.notify_all();
}

bool Scheduler::RunRandom() {
  std::vector<Queue*> runnable;
  for (const auto& queue : queues_) {
    if (Arrive(*queue)) runnable.push_back(queue.get());
  }
  if (runnable.empty()) return false;
  RunFirst(*runnable[random_() % runnable.size()]);
  return true;
}

bool Scheduler::Reach(const Point& point) {
  if (Reached(point)) return true;
  if (schedule_ == Schedule::kRandom) {
    while (!Reached(point)) {
      if (!RunRandom()) return false;
    }
    return true;
  }
  Queue& queue = *point.queue;
  // What leads back to where it came from waits for itself, for now: the other
  // way may be that another thread brings more.
  if (queue.reaching_) return false;
  queue.reaching_ = true;
  bool able = true;
  while (able && !Reached(point)) able = ReachFirst(queue);
  queue.reaching_ = false;
  return able;
}

bool Scheduler::ReachFirst(Queue& queue) {
  CHECK(!queue.operations_.empty());
  if (!Reach(queue.operations_.front().after)) return false;
  if (!Arrive(queue)) {
    Bring(*queue.operations_.front().meeting);
    if (!Arrive(queue)) return false;
  }
  RunFirst(queue);
  return true;
}

void Scheduler::Bring(const Meeting& meeting) {
  messages_.Acquire();
  for (const Point& before : meeting.Awaited()) {
    if (Reach(before) && before.queue->done() == before.count) {
      Arrive(*before.queue);
    }
  }
}

bool Scheduler::ReachOwn() {
  bool all = true;
  for (size_t i = 0; i < queues_.size(); ++i) {
    const std::shared_ptr<Queue> queue = queues_[i];
    if (queue->owner_ != std::this_thread::get_id()) continue;
    const Point end = {queue, queue->added()};
    if (Reach(end)) {
      GoOnAfter(end);
    } else {
      all = false;
    }
  }
  return all;
}

void Scheduler::Progress() {
  changed_.notify_all();
  if (schedule_ == Schedule::kEager) {
    ReachOwn();
  } else if (random_() % 100 < progress_percent_) {
    RunRandom();
  }
}

}  // namespace trireme::cuda_emulation
