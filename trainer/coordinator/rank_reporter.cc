#include "trainer/coordinator/rank_reporter.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "runtime/core/status.h"

namespace trireme {
namespace {

void FindMostLoaded(const StepMetrics& metrics, ExpertFigures& figures) {
  for (const auto& [layer, shares] : metrics.expert_shares) {
    const auto most = std::max_element(shares.begin(), shares.end());
    if (most == shares.end()) continue;
    const double load = *most * static_cast<double>(shares.size());
    if (load <= figures.load()) continue;
    figures.set_layer(layer);
    figures.set_expert(static_cast<int32_t>(most - shares.begin()));
    figures.set_load(load);
  }
  figures.set_dropped_share(metrics.dropped_share.value_or(0));
}

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
  figures.set_left_out_steps(metrics.left_out_steps);
  figures.set_roll_backs(metrics.roll_backs);
  figures.set_trouble(metrics.trouble);
  figures.mutable_stragglers()->Assign(metrics.stragglers.begin(),
                                       metrics.stragglers.end());
  figures.mutable_exposed_s()->insert(metrics.exposed_s.begin(),
                                      metrics.exposed_s.end());
  figures.mutable_auxiliary_losses()->insert(metrics.auxiliary_losses.begin(),
                                             metrics.auxiliary_losses.end());
  if (!metrics.expert_shares.empty()) {
    FindMostLoaded(metrics, *figures.mutable_experts());
  }
  for (int i = 0; i < kNumMemoryCategories; ++i) {
    (*figures.mutable_peak_bytes())[std::string(MemoryCategoryName(
        static_cast<MemoryCategory>(i)))] = metrics.peak_bytes[i];
  }
  return figures;
}

}  // namespace

RankReporter::RankReporter(Options options)
    : options_(std::move(options)), client_(options_.coordinator.address) {
  std::array<char, 256> host{};
  if (gethostname(host.data(), host.size() - 1) != 0) host[0] = '?';
  report_.set_rank(options_.rank);
  report_.set_world_size(options_.world_size);
  report_.set_start(options_.coordinator.start);
  report_.set_host(host.data());
  report_.set_process(getpid());
  report_.set_peak_flops(options_.peak_flops);
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
  last_progress_ = Clock::now();
  report_.set_state(RankReport::TRAINING);
  report_.set_step(metrics.step);
  report_.set_steps(steps);
  report_.set_own_compute_s(metrics.own_compute_s);
  if (report_.rank() == 0) *report_.mutable_figures() = FiguresOf(metrics);
}

Orders RankReporter::Take() {
  const std::lock_guard lock(mutex_);
  if (report_.rank() != 0) return {};
  const bool orphaned =
      Clock::now() - last_listened_ > options_.timeouts.orphaned;
  const Orders orders{.save = heard_.saves() > taken_.saves(),
                      .stop = heard_.stops() > taken_.stops() || orphaned};
  taken_ = heard_;
  return orders;
}

void RankReporter::End(const absl::Status& status) {
  {
    const std::lock_guard lock(mutex_);
    report_.set_state(status.ok() ? RankReport::ENDED : RankReport::FAILED);
    report_.set_error(MessageOf(status));
    report_.set_may_pass(absl::IsUnavailable(status) ||
                         absl::IsResourceExhausted(status));
  }
  Tell();
}

void RankReporter::Tell() {
  // One report at a time: an older one must not arrive after a newer one.
  const std::lock_guard telling(telling_);
  RankReport report;
  {
    const std::lock_guard lock(mutex_);
    report = report_;
  }
  const absl::StatusOr<OrdersSoFar> orders = client_.Report(report);
  const std::lock_guard lock(mutex_);
  if (!absl::IsUnavailable(orders.status())) last_listened_ = Clock::now();
  refused_ = absl::IsFailedPrecondition(orders.status());
  // Who does not answer may yet, and the job goes on without.
  if (!orders.ok()) return;
  heard_ = *orders;
  // A launch that takes another one's place counts from 0.
  taken_.set_saves(std::min(taken_.saves(), heard_.saves()));
  taken_.set_stops(std::min(taken_.stops(), heard_.stops()));
  last_progress_ = Clock::now();
  if (report_.figures().step() == report.figures().step()) {
    report_.clear_figures();
  }
}

void RankReporter::Run() {
  std::unique_lock lock(mutex_);
  bool told = false;
  while (!ending_) {
    lock.unlock();
    Tell();
    lock.lock();
    const bool cut_off = options_.hears_far && Clock::now() - last_progress_ >
                                                   options_.timeouts.given_up;
    if ((refused_ || cut_off) && !told && options_.given_up != nullptr) {
      told = true;
      lock.unlock();
      options_.given_up();
      lock.lock();
    }
    changed_.wait_for(lock, options_.timeouts.heartbeat,
                      [this] { return ending_; });
  }
}

}  // namespace trireme
