#include "trainer/coordinator/rank_reporter.h"

#include <unistd.h>

#include <array>
#include <chrono>
#include <utility>

#include "runtime/core/status.h"
#include "trainer/coordinator/job_watch.h"

namespace trireme {
namespace {

StepFigures FiguresOf(const StepMetrics& metrics) {
  StepFigures figures;
  figures.set_step(metrics.step);
  figures.set_loss(metrics.loss);
  figures.set_gradient_norm(metrics.gradient_norm);
  figures.set_learning_rate(metrics.learning_rate);
  figures.set_step_s(metrics.step_s);
  figures.set_samples_per_s(metrics.samples_per_s());
  figures.set_model_flops_per_s(metrics.model_flops_per_s());
  figures.set_compute_s(metrics.compute_s);
  figures.mutable_exposed_s()->insert(metrics.exposed_s.begin(),
                                      metrics.exposed_s.end());
  for (int i = 0; i < kNumMemoryCategories; ++i) {
    (*figures.mutable_peak_bytes())[std::string(MemoryCategoryName(
        static_cast<MemoryCategory>(i)))] = metrics.peak_bytes[i];
  }
  return figures;
}

}  // namespace

RankReporter::RankReporter(const CoordinatorAddress& address, int rank,
                           int world_size, std::function<void()> cut_off,
                           std::chrono::seconds patience)
    : client_(address), cut_off_(std::move(cut_off)), patience_(patience) {
  std::array<char, 256> host{};
  if (gethostname(host.data(), host.size() - 1) != 0) host[0] = '?';
  report_.set_rank(rank);
  report_.set_world_size(world_size);
  report_.set_host(host.data());
  report_.set_process(getpid());
  thread_ = std::thread([this] { Run(); });
}

RankReporter::~RankReporter() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void RankReporter::Note(const StepMetrics& metrics, int64_t steps) {
  const std::lock_guard lock(mutex_);
  last_progress_ = std::chrono::steady_clock::now();
  report_.set_state(RankReport::TRAINING);
  report_.set_step(metrics.step);
  report_.set_steps(steps);
  report_.set_own_compute_s(metrics.own_compute_s);
  if (report_.rank() == 0) *report_.mutable_figures() = FiguresOf(metrics);
}

Orders RankReporter::Take() {
  const std::lock_guard lock(mutex_);
  if (report_.rank() != 0) return {};
  const Orders orders{.save = heard_.saves() > taken_.saves(),
                      .stop = heard_.stops() > taken_.stops()};
  taken_ = heard_;
  return orders;
}

void RankReporter::End(const absl::Status& status) {
  {
    const std::lock_guard lock(mutex_);
    report_.set_state(status.ok() ? RankReport::ENDED : RankReport::FAILED);
    report_.set_error(MessageOf(status));
  }
  Tell();
}

bool RankReporter::Tell() {
  // One report at a time: an older one must not arrive after a newer one.
  const std::lock_guard telling(telling_);
  RankReport report;
  {
    const std::lock_guard lock(mutex_);
    report = report_;
  }
  const absl::StatusOr<OrdersSoFar> orders = client_.Report(report);
  // Who does not answer may yet, and the job goes on without.
  if (!orders.ok()) return false;
  const std::lock_guard lock(mutex_);
  heard_ = *orders;
  last_progress_ = std::chrono::steady_clock::now();
  if (report_.figures().step() == report.figures().step()) {
    report_.clear_figures();
  }
  return true;
}

void RankReporter::Run() {
  std::unique_lock lock(mutex_);
  bool told = false;
  while (!ending_) {
    lock.unlock();
    const bool heard = Tell();
    lock.lock();
    if (!heard && !told && cut_off_ != nullptr &&
        std::chrono::steady_clock::now() - last_progress_ > patience_) {
      told = true;
      cut_off_();
    }
    changed_.wait_for(lock, kReportInterval, [this] { return ending_; });
  }
}

}  // namespace trireme
