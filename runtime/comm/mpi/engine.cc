#include "runtime/comm/mpi/engine.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"
#include "runtime/comm/mpi/backoff.h"
#include "runtime/comm/mpi/messages.h"
#include "runtime/core/log.h"
#include "runtime/core/timeouts.h"

namespace trireme {

MpiEngine::MpiEngine(int world_rank, std::chrono::nanoseconds deadline,
                     bool crowded, bool synchronous_sends)
    : deadline_(deadline),
      crowded_(crowded),
      synchronous_sends_(synchronous_sends),
      max_tag_(LargestMpiTag()),
      registry_(world_rank) {}

MpiEngine::~MpiEngine() {
  {
    std::lock_guard lock(mutex_);
    for (const auto& task : tasks_) {
      LOG(ERROR) << "never completed: " << task->note().text;
    }
    CHECK(tasks_.empty()) << "operations outlive the world";
    stopping_ = true;
  }
  work_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void MpiEngine::Start(std::shared_ptr<MpiTask> task) {
  bool wake = false;
  registry_.Started(task->note_);
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

void MpiEngine::PollUntil(const std::function<bool()>& done) {
  Backoff backoff(crowded_);
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
    } else {
      backoff.Pause();
    }
  }
}

void MpiEngine::Wait(const MpiTask& task) {
  if (task.done()) {
    // Not before the engine has let go of its tensors.
    Caller caller(*this);
    return;
  }
  const WaitRegistry::Wait wait(registry_, task.note_, deadline_);
  PollUntil([&] { return task.done(); });
}

void MpiEngine::Drain(const void* owner) {
  const auto first_of_owner = [&] {
    return std::find_if(tasks_.begin(), tasks_.end(), [&](const auto& task) {
      return task->owner_ == owner;
    });
  };
  std::shared_ptr<MpiTask> first;
  Exclusively([&] {
    const auto found = first_of_owner();
    if (found != tasks_.end()) first = *found;
  });
  if (!first) return;
  const WaitRegistry::Wait wait(
      registry_, first->note_,
      std::min<std::chrono::nanoseconds>(deadline_, Timeouts().drain));
  PollUntil([&] { return first_of_owner() == tasks_.end(); });
}

void MpiEngine::Fail(std::string text) {
  registry_.SetFailure(std::move(text));
  parked_.store(true, std::memory_order_release);
  while (true) std::this_thread::sleep_for(std::chrono::hours(1));
}

void MpiEngine::Check(int result, std::string_view what) {
  if (result == MPI_SUCCESS) return;
  Fail(fmt::format("{}: {}", what, MpiErrorText(result)));
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
