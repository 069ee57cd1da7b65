#include "runtime/comm/nccl/nccl_watch.h"

#include <utility>

#include "runtime/core/log.h"

namespace trireme {
namespace {

constexpr std::chrono::milliseconds kPeriod{100};
// Beyond these, what is done is forgotten as more is added.
constexpr size_t kRemembered = 64;

}  // namespace

void NcclWatch::Line::Add(std::shared_ptr<const OperationNote> note,
                          Event begun, Event done) {
  const std::lock_guard lock(mutex_);
  while (operations_.size() > kRemembered && operations_.front().done.Test()) {
    wait_.reset();
    operations_.pop_front();
  }
  operations_.push_back({std::move(note), std::move(begun), std::move(done),
                         WaitRegistry::Clock::now()});
}

void NcclWatch::Line::Look(WaitRegistry& registry,
                           std::chrono::nanoseconds late) {
  const std::lock_guard lock(mutex_);
  if (std::string text = failure_(); !text.empty()) {
    registry.SetFailure(std::move(text));
  }
  const auto now = WaitRegistry::Clock::now();
  while (!operations_.empty() && now - operations_.front().since >= late) {
    Operation& first = operations_.front();
    if (!first.done.Test()) {
      // A long computation before it is no hang.
      if (!wait_.has_value() && first.begun.Test()) {
        wait_.emplace(registry, first.note, late);
      }
      return;
    }
    wait_.reset();
    operations_.pop_front();
  }
}

NcclWatch::NcclWatch(const HangWatch& watch)
    : watch_(watch), thread_([this] { Run(); }) {
  CHECK(watch.registry != nullptr);
}

NcclWatch::~NcclWatch() {
  {
    const std::lock_guard lock(mutex_);
    CHECK(lines_.empty()) << "communicators outlive their world";
    stopping_ = true;
  }
  stop_.notify_all();
  thread_.join();
}

NcclWatch::Line& NcclWatch::NewLine(std::function<std::string()> failure) {
  const std::lock_guard lock(mutex_);
  Line& line = lines_.emplace_back();
  line.failure_ = std::move(failure);
  return line;
}

void NcclWatch::Remove(Line& line) {
  const std::lock_guard lock(mutex_);
  lines_.remove_if([&](const Line& other) { return &other == &line; });
}

void NcclWatch::Run() {
  std::unique_lock lock(mutex_);
  while (!stop_.wait_for(lock, kPeriod, [&] { return stopping_; })) {
    // A wait begins when an operation is half as old as it may become.
    for (Line& line : lines_) line.Look(registry(), deadline() / 2);
  }
}

}  // namespace trireme
