#include "trainer/coordinator/job_watch.h"

#include <algorithm>
#include <utility>

#include "runtime/core/check_range.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// As many as a picture of their losses is wide.
constexpr size_t kMostSteps = 200;

double Seconds(JobWatch::Clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

bool IsOver(const RankReport& report) {
  return report.state() == RankReport::ENDED ||
         report.state() == RankReport::FAILED;
}

}  // namespace

JobWatch::JobWatch(std::string folder, Clock::time_point now)
    : folder_(std::move(folder)), begin_(now) {}

void JobWatch::Begin(int64_t start) {
  const std::lock_guard lock(mutex_);
  start_ = start;
  ranks_.clear();
}

absl::StatusOr<OrdersSoFar> JobWatch::Report(const RankReport& report,
                                             Clock::time_point now) {
  RETURN_IF_ERROR(
      CheckRange("rank", report.rank(), 0, report.world_size() - 1));
  const std::lock_guard lock(mutex_);
  if (report.start() != start_) {
    return FailedPrecondition(
        "start: found {}, expected {}: the ranks were "
        "started again",
        report.start(), start_);
  }
  Rank& rank = ranks_[report.rank()];
  rank = {.report = report, .heard = now};
  if (report.has_figures()) {
    // A job that was started again does some of its steps again.
    while (!steps_.empty() && steps_.back().step() >= report.figures().step()) {
      steps_.pop_back();
    }
    steps_.push_back(report.figures());
    if (steps_.size() > kMostSteps) steps_.pop_front();
    rank.report.clear_figures();
  }
  return orders_;
}

absl::Status JobWatch::GiveOrder(Order::Kind kind) {
  const std::lock_guard lock(mutex_);
  switch (kind) {
    case Order::SAVE:
      orders_.set_saves(orders_.saves() + 1);
      return absl::OkStatus();
    case Order::STOP:
      orders_.set_stops(orders_.stops() + 1);
      return absl::OkStatus();
    default:
      return InvalidArgument("kind: found {}, expected SAVE or STOP",
                             static_cast<int>(kind));
  }
}

JobStatus JobWatch::Status(Clock::time_point now) const {
  const std::lock_guard lock(mutex_);
  JobStatus status;
  status.set_folder(folder_);
  status.set_age_s(Seconds(now - begin_));
  for (const auto& [number, rank] : ranks_) {
    RankStatus& entry = *status.add_ranks();
    *entry.mutable_report() = rank.report;
    entry.set_silent_s(Seconds(now - rank.heard));
  }
  *status.mutable_steps() = {steps_.begin(), steps_.end()};
  *status.mutable_orders() = orders_;
  return status;
}

std::optional<JobWatch::Clock::duration> JobWatch::AllSilentFor(
    Clock::time_point now) const {
  const std::lock_guard lock(mutex_);
  if (ranks_.empty()) return std::nullopt;
  Clock::time_point last = begin_;
  for (const auto& [number, rank] : ranks_) last = std::max(last, rank.heard);
  return now - last;
}

std::vector<RankReport> JobWatch::SilentFor(Clock::time_point now,
                                            Clock::duration limit) const {
  const std::lock_guard lock(mutex_);
  std::vector<RankReport> silent;
  for (const auto& [number, rank] : ranks_) {
    if (!IsOver(rank.report) && now - rank.heard > limit) {
      silent.push_back(rank.report);
    }
  }
  return silent;
}

void JobWatch::Excuse(Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  for (auto& [number, rank] : ranks_) rank.heard = std::max(rank.heard, now);
}

bool JobWatch::AnyFailedForGood() const {
  const bool training = Training();
  const std::lock_guard lock(mutex_);
  return std::any_of(ranks_.begin(), ranks_.end(), [&](const auto& entry) {
    const RankReport& report = entry.second.report;
    return report.state() == RankReport::FAILED &&
           (training || !report.may_pass());
  });
}

bool JobWatch::AllEnded() const {
  const std::lock_guard lock(mutex_);
  const auto ended = [](const auto& entry) {
    return entry.second.report.state() == RankReport::ENDED;
  };
  return !ranks_.empty() &&
         static_cast<int>(ranks_.size()) ==
             ranks_.begin()->second.report.world_size() &&
         std::all_of(ranks_.begin(), ranks_.end(), ended);
}

bool JobWatch::Training() const {
  const std::lock_guard lock(mutex_);
  return std::any_of(ranks_.begin(), ranks_.end(), [](const auto& entry) {
    return entry.second.report.step() > 0;
  });
}

int64_t JobWatch::last_step() const {
  const std::lock_guard lock(mutex_);
  return steps_.empty() ? 0 : steps_.back().step();
}

std::vector<RankReport> JobWatch::NewlySilent(Clock::time_point now,
                                              Clock::duration limit) {
  const std::lock_guard lock(mutex_);
  std::vector<RankReport> silent;
  for (auto& [number, rank] : ranks_) {
    if (rank.called_silent || IsOver(rank.report) || now - rank.heard <= limit)
      continue;
    rank.called_silent = true;
    silent.push_back(rank.report);
  }
  return silent;
}

}  // namespace trireme
