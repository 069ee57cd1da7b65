#include "runtime/comm/mpi/engine.h"

#include <utility>

#include "fmt/format.h"
#include "runtime/comm/mpi/backoff.h"
#include "runtime/comm/mpi/messages.h"
#include "runtime/core/log.h"

namespace trireme {

MpiEngine::MpiEngine(std::chrono::nanoseconds deadline, bool crowded)
    : deadline_(deadline), crowded_(crowded) {}

MpiEngine::~MpiEngine() {
  {
    std::lock_guard lock(mutex_);
    for (const auto& task : tasks_) {
      LOG(ERROR) << "never completed: " << task->Describe();
    }
    CHECK(tasks_.empty()) << "operations outlive the world";
    stopping_ = true;
  }
  work_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void MpiEngine::Start(std::shared_ptr<MpiTask> task) {
  bool wake = false;
  {
    Caller caller(*this);
    if (task->Advance() == MpiTask::Step::kDone) {
      task->done_.store(true, std::memory_order_release);
      return;
    }
    if (task->background_) {
      ++background_tasks_;
      ++background_started_;
      wake = true;
      if (!thread_.joinable()) {
        thread_ = std::thread([this] { RunInBackground(); });
      }
    }
    tasks_.push_back(std::move(task));
  }
  if (wake) work_.notify_one();
}

bool MpiEngine::Poll(Tasks& finished) {
  bool moved = false;
  size_t kept = 0;
  for (size_t i = 0; i < tasks_.size(); ++i) {
    const MpiTask::Step step = tasks_[i]->Advance();
    moved |= step != MpiTask::Step::kWaits;
    if (step == MpiTask::Step::kDone) {
      if (tasks_[i]->background_) --background_tasks_;
      tasks_[i]->done_.store(true, std::memory_order_release);
      finished.push_back(std::move(tasks_[i]));
    } else {
      if (kept != i) tasks_[kept] = std::move(tasks_[i]);
      ++kept;
    }
  }
  tasks_.resize(kept);
  return moved;
}

void MpiEngine::Wait(const MpiTask& task) {
  if (task.done()) return;
  Backoff backoff(crowded_);
  const auto begin = std::chrono::steady_clock::now();
  // Other tasks may move while this one hangs: the deadline has its own clock.
  while (true) {
    bool moved = false;
    {
      Tasks finished;
      Caller caller(*this);
      if (task.done()) return;
      moved = Poll(finished);
    }
    if (task.done()) return;
    if (moved) {
      backoff.Reset();
      continue;
    }
    backoff.Pause();
    if (backoff.waited().count() > 0 &&
        std::chrono::steady_clock::now() - begin > deadline_) {
      ReportHang(task);
    }
  }
}

bool MpiEngine::Test(const MpiTask& task) {
  if (task.done()) return true;
  Tasks finished;
  Caller caller(*this);
  Poll(finished);
  return task.done();
}

void MpiEngine::RunInBackground() {
  // It competes with the computation for processors: never polls eagerly.
  Backoff backoff(/*crowded=*/true);
  int64_t seen = 0;
  while (true) {
    {
      Tasks finished;
      std::unique_lock lock(mutex_);
      work_.wait(lock, [&] { return stopping_ || background_tasks_ > 0; });
      if (stopping_) return;
      if (background_started_ != seen) {
        seen = background_started_;
        backoff.Reset();
      }
      // A thread that waits advances everything.
      if (callers_.load() == 0 && Poll(finished)) backoff.Reset();
    }
    backoff.Pause();
  }
}

void MpiEngine::ReportHang(const MpiTask& task) {
  std::string text;
  {
    Caller caller(*this);
    text = fmt::format("deadline of {:.1f} s passed waiting for {}",
                       std::chrono::duration<double>(deadline_).count(),
                       task.Describe());
    for (const auto& other : tasks_) {
      if (other.get() == &task) continue;
      text += "\n  also under way: " + other->Describe();
    }
  }
  AbortJob(text);
}

}  // namespace trireme
