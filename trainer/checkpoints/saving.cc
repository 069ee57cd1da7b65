#include "trainer/checkpoints/saving.h"

#include <chrono>
#include <thread>

#include "fmt/format.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/core/timeouts.h"

namespace trireme {
namespace {

constexpr Timeouts kTimeouts;
constexpr std::string_view kGoesOn =
    "training goes on, and the next one is tried in its turn";

}  // namespace

Saving::Saving(CheckpointSaver& saver, const CheckpointConfig& config,
               bool leader)
    : saver_(saver),
      every_(config.every()),
      memory_every_(config.memory_every()),
      every_minutes_(config.every_minutes()),
      leader_(leader) {}

bool Saving::DueByClock() const {
  return every_minutes_.count() > 0 &&
         std::chrono::steady_clock::now() - last_ >= every_minutes_;
}

void Saving::AfterStep(const TrainingProgress& progress, bool ordered,
                       bool busy) {
  if (saver_.pending() && !busy) Tell(saver_.Advance(), kGoesOn);
  const auto due = [&](int64_t every) {
    return every > 0 && progress.step % every == 0;
  };
  if (ordered || due(every_)) {
    Begin(progress, CheckpointSaver::Place::kDisk);
    last_ = std::chrono::steady_clock::now();
  } else if (due(memory_every_)) {
    Begin(progress, CheckpointSaver::Place::kMemory);
  }
}

void Saving::Begin(const TrainingProgress& progress,
                   CheckpointSaver::Place place) {
  WaitForEnd();
  step_ = progress.step;
  place_ = place;
  Tell(saver_.Start(progress, place), kGoesOn);
}

void Saving::WaitForEnd() {
  if (saver_.pending()) Tell(saver_.Finish(), kGoesOn);
}

void Saving::EndAlone() { Tell(saver_.FinishAlone(), "the run ends"); }

absl::Status Saving::SaveLast(const TrainingProgress& progress) {
  waited_s_ = saver_.seconds();
  WaitForEnd();
  step_ = progress.step;
  place_ = CheckpointSaver::Place::kDisk;
  for (int attempt = 1;; ++attempt) {
    absl::Status saved = saver_.Start(progress);
    if (saved.ok()) saved = saver_.Finish();
    if (saved.ok() || attempt == kTimeouts.save_attempts) return saved;
    Tell(saved, fmt::format("tries again in {} s",
                            std::chrono::ceil<std::chrono::seconds>(
                                kTimeouts.save_again)
                                .count()));
    std::this_thread::sleep_for(kTimeouts.save_again);
  }
}

void Saving::Tell(const absl::Status& status, std::string_view now) const {
  if (status.ok() || !leader_) return;
  LOG(ERROR) << "step " << step_
             << (place_ == CheckpointSaver::Place::kDisk
                     ? ": NO CHECKPOINT was written: "
                     : ": NO COPY in memory was made: ")
             << MessageOf(status) << "; " << now;
}

}  // namespace trireme
