#include "runtime/comm/mpi/engine.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"
#include "runtime/comm/mpi/backoff.h"
#include "runtime/comm/mpi/messages.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

constexpr std::chrono::nanoseconds kDrainDeadline = std::chrono::seconds(10);

}  // namespace

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

bool MpiEngine::Poll() {
  bool moved = false;
  size_t kept = 0;
  for (size_t i = 0; i < tasks_.size(); ++i) {
    const MpiTask::Step step = tasks_[i]->Advance();
    moved |= step != MpiTask::Step::kWaits;
    if (step == MpiTask::Step::kDone) {
      if (tasks_[i]->background_) --background_tasks_;
      tasks_[i]->done_.store(true, std::memory_order_release);
      tasks_[i].reset();
    } else {
      if (kept != i) tasks_[kept] = std::move(tasks_[i]);
      ++kept;
    }
  }
  tasks_.resize(kept);
  return moved;
}

void MpiEngine::WaitUntil(const std::function<bool()>& done,
                          std::chrono::nanoseconds deadline,
                          const std::function<std::string()>& what) {
  Backoff backoff(crowded_);
  const auto begin = std::chrono::steady_clock::now();
  // Other tasks may move while this one hangs: the deadline has its own clock.
  while (true) {
    bool moved = false;
    {
      Caller caller(*this);
      if (done()) return;
      moved = Poll();
      if (done()) return;
    }
    if (moved) {
      backoff.Reset();
      continue;
    }
    backoff.Pause();
    if (backoff.waited().count() == 0 ||
        std::chrono::steady_clock::now() - begin < deadline) {
      continue;
    }
    Caller caller(*this);
    std::string text =
        fmt::format("deadline of {:.1f} s passed waiting for {}",
                    std::chrono::duration<double>(deadline).count(), what());
    for (const auto& task : tasks_) {
      text += "\n  under way: " + task->Describe();
    }
    AbortJob(text);
  }
}

void MpiEngine::Wait(const MpiTask& task) {
  WaitUntil([&] { return task.done(); }, deadline_,
            [&] { return task.Describe(); });
}

void MpiEngine::Drain(const void* owner, std::string_view name) {
  const auto drained = [&] {
    return std::none_of(tasks_.begin(), tasks_.end(), [&](const auto& task) {
      return task->owner_ == owner;
    });
  };
  WaitUntil(drained, std::min(deadline_, kDrainDeadline), [&] {
    return fmt::format("operations on '{}', which is being destroyed", name);
  });
}

bool MpiEngine::Test(const MpiTask& task) {
  Caller caller(*this);
  if (!task.done()) Poll();
  return task.done();
}

void MpiEngine::RunInBackground() {
  // It competes with the computation for processors: never polls eagerly.
  Backoff backoff(/*crowded=*/true);
  int64_t seen = 0;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      work_.wait(lock, [&] { return stopping_ || background_tasks_ > 0; });
      if (stopping_) return;
      if (background_started_ != seen) {
        seen = background_started_;
        backoff.Reset();
      }
      // A thread that waits advances everything.
      if (callers_.load() == 0 && Poll()) backoff.Reset();
    }
    backoff.Pause();
  }
}

}  // namespace trireme
