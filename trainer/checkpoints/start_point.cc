#include "trainer/checkpoints/start_point.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <chrono>
#include <filesystem>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "fmt/format.h"
#include "parallel/sharding/stored_tensors.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/comm/patience.h"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/processes.h"
#include "runtime/core/status.h"
#include "runtime/device/arena.h"
#include "trainer/checkpoints/checkpoint_saver.h"
#include "trainer/checkpoints/initial_weights.h"
#include "trainer/config/local_path.h"
#include "trainer/job/agreement.h"
#include "trainer/run/resume.h"

namespace trireme {
namespace {

constexpr int64_t kMostIdBytes = 64;

std::string NewId() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return fmt::format(
      "{:x}{:x}",
      std::chrono::duration_cast<std::chrono::microseconds>(now).count(),
      getpid());
}

// Of the run that the folder holds; empty where it has made no copies. A
// checkpoint of the user's choice is where another history begins.
std::string IdOf(const TrainOptions& options, const RunFolder& folder) {
  if (!options.resume || options.from_step.has_value()) return "";
  const std::string id =
      ReadFile(folder.memory_copies(), kMostIdBytes).value_or("");
  const bool sound = std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return std::isxdigit(c) != 0;
  });
  return sound ? id : "";
}

// The step of the newest checkpoint on disk by its name; -1: there is none.
int64_t NewestOnDisk(const RunFolder& folder) {
  const auto steps = CheckpointSteps(folder.checkpoints());
  return steps.ok() && !steps->empty() ? steps->back() : -1;
}

// Errors name the checkpoints that there are.
absl::Status CheckIsThere(const RunFolder& folder, int64_t step) {
  const absl::Status found =
      ReadManifest(folder.checkpoints() + "/" + CheckpointName(step)).status();
  if (found.ok()) return found;
  const auto steps = CheckpointSteps(folder.checkpoints());
  std::vector<std::string> names;
  if (steps.ok()) {
    for (const int64_t other : *steps) {
      if (other != step) names.push_back(CheckpointName(other));
    }
  }
  return StatusOf(found.code(), "{}; expected another one of the run's: {}",
                  MessageOf(found),
                  names.empty() ? "there is none" : absl::StrJoin(names, ", "));
}

// The files that hold this rank's parts of the copy's tensors. The indexes are
// on this host.
absl::StatusOr<std::set<std::string>> NeededFiles(RankModel& model,
                                                  const MemoryCopy& copy,
                                                  const std::string& path) {
  const std::array<std::pair<const char*, std::vector<TensorPart>>, 4> sets = {
      {{kWeightsFile, model.MasterParts()},
       {kFirstMomentFile, model.MomentParts(/*second=*/false)},
       {kSecondMomentFile, model.MomentParts(/*second=*/true)},
       {kEmaFile, model.EmaParts()}}};
  std::set<std::string> needed;
  for (const auto& [name, parts] : sets) {
    if (parts.empty()) continue;
    if (!copy.files.contains(StoredTensors::IndexName(name))) {
      if (copy.files.contains(name)) needed.insert(name);
      continue;
    }
    ASSIGN_OR_RETURN(const auto stored, StoredTensors::Open(path + "/" + name));
    for (const TensorPart& part : parts) {
      ASSIGN_OR_RETURN(const std::vector<std::string> files,
                       stored->FilesOf(part));
      for (const std::string& file : files) {
        // What the index makes up, reading it will tell.
        if (copy.files.contains(file)) needed.insert(file);
      }
    }
  }
  return needed;
}

// The newest copy of step `at_least` or later, if there is one.
absl::Status ChooseCopy(const TrainOptions& options, const RunFolder& folder,
                        const Job& job, MemoryCopies* copies, int64_t at_least,
                        Control& control, StartPoint& start) {
  if (copies == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(start.copy, copies->FindNewest(control, at_least));
  if (!start.copy.has_value()) return absl::OkStatus();
  start.step = start.copy->step;
  start.checkpoint = copies->PathOf(start.step);
  absl::Status fits;
  if (control.rank() == 0) {
    fits =
        CheckGoesOn(folder, job, options.allow, start.step, *start.checkpoint);
  }
  return control.Agree(fits, "going on from a memory copy");
}

absl::Status BringCopy(RankModel& model, const std::string& path,
                       MemoryCopies& copies, MemoryCopy& copy) {
  Control& control = model.context().communicators().control();
  std::set<std::string> indexes;
  for (const char* name :
       {kWeightsFile, kFirstMomentFile, kSecondMomentFile, kEmaFile}) {
    const std::string index = StoredTensors::IndexName(name);
    if (copy.files.contains(index)) indexes.insert(index);
  }
  RETURN_IF_ERROR(copies.Bring(control, copy, indexes));
  const auto needed = NeededFiles(model, copy, path);
  RETURN_IF_ERROR(control.Agree(needed.status(), "files of a memory copy"));
  return copies.Bring(control, copy, *needed);
}

}  // namespace

absl::StatusOr<std::unique_ptr<MemoryCopies>> OpenMemoryCopies(
    const TrainOptions& options, const RunFolder& folder, const Job& job,
    CommunicatorFactory& factory, Control& control) {
  std::string id, place;
  if (control.rank() == 0) {
    id = IdOf(options, folder);
    if (id.empty() && job.checkpoint().memory_every() > 0) id = NewId();
    std::error_code error;
    place = std::filesystem::absolute(folder.root(), error).lexically_normal();
  }
  const absl::StatusOr<std::string> root =
      LocalPath(job.checkpoint().memory_folder());
  absl::Status there = root.status();
  if (there.ok() && control.rank() == 0 && options.resume &&
      options.from_step.has_value()) {
    // Copies of steps after it are given up for it.
    there = CheckIsThere(folder, *options.from_step);
  }
  RETURN_IF_ERROR(control.Agree(there, "the checkpoint to go on from"));
  control.Broadcast(id, "memory copies");
  control.Broadcast(place, "memory copies");
  if (id.empty()) return nullptr;
  auto copies = std::make_unique<MemoryCopies>(
      factory, control,
      MemoryCopiesOptions{.root = *root,
                          .host = options.host.value_or(HostName()),
                          .run_folder = place,
                          .id = id});
  RETURN_IF_ERROR(copies->Begin(control));
  return copies;
}

absl::StatusOr<StartPoint> ChooseStart(const TrainOptions& options,
                                       const RunFolder& folder, const Job& job,
                                       MemoryCopies* copies,
                                       Communicator& everyone,
                                       Control& control) {
  StartPoint start;
  if (!options.resume) return start;
  const bool leader = control.rank() == 0;
  absl::Status recovered;
  if (leader) recovered = RecoverCheckpoints(folder.checkpoints());
  // Removing takes what it takes.
  AwaitAllPatiently(everyone, "what saves have left unfinished");
  RETURN_IF_ERROR(control.Agree(recovered, "what saves have left unfinished"));
  int64_t on_disk = leader ? NewestOnDisk(folder) : -1;
  control.Max(std::span(&on_disk, 1), "newest checkpoint");
  RETURN_IF_ERROR(
      ChooseCopy(options, folder, job, copies, on_disk, control, start));
  if (start.copy.has_value()) return start;
  absl::StatusOr<std::optional<ResumePoint>> found = std::nullopt;
  if (leader) {
    found = FindResumePoint(folder, job, options.allow, options.from_step);
  }
  // Rank 0 reads all of a checkpoint, which takes what it takes.
  AwaitAllPatiently(everyone, "choosing a checkpoint");
  int64_t whole = -1;
  if (leader && found.ok() && found->has_value()) whole = (*found)->step;
  // Whoever may not go on from a whole one is told so.
  if (!found.ok() && !absl::IsDataLoss(found.status())) whole = on_disk;
  control.Max(std::span(&whole, 1), "newest whole checkpoint");
  // A copy that is older than what is damaged may be newer than what is not.
  if (whole < on_disk) {
    RETURN_IF_ERROR(
        ChooseCopy(options, folder, job, copies, whole + 1, control, start));
    if (start.copy.has_value()) {
      if (!found.ok()) LOG(ERROR) << MessageOf(found.status());
      return start;
    }
  }
  RETURN_IF_ERROR(control.Agree(found.status(), "choosing a checkpoint"));
  std::optional<std::string> chosen;
  if (found->has_value()) chosen = (*found)->checkpoint;
  ASSIGN_OR_RETURN(start.checkpoint,
                   AgreeOnCheckpoint(control, folder.checkpoints(), chosen));
  if (start.checkpoint.has_value()) {
    ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(*start.checkpoint));
    start.step = manifest.step;
  }
  return start;
}

absl::StatusOr<TrainingProgress> LoadStart(RankModel& model, StartPoint& start,
                                           MemoryCopies* copies,
                                           const Init& init) {
  if (start.copy.has_value()) {
    RETURN_IF_ERROR(
        WithContext(BringCopy(model, *start.checkpoint, *copies, *start.copy),
                    "memory copy"));
  }
  if (start.checkpoint.has_value()) {
    return LoadCheckpoint(model, *start.checkpoint);
  }
  if (!init.weights().empty()) {
    RETURN_IF_ERROR(WithContext(
        LoadInitialWeights(model, init.weights(), init.ema()), "init.weights"));
  }
  return TrainingProgress();
}

absl::StatusOr<int64_t> ReserveForCopies(RankModel& model, const Job& job,
                                         MemoryCopies* copies,
                                         int64_t free_bytes,
                                         int64_t home_limit) {
  if (job.checkpoint().memory_every() == 0) return 0;
  Control& control = model.context().communicators().control();
  ASSIGN_OR_RETURN(const int64_t bytes,
                   copies->Reserve(control, StateBytes(model)));
  const int64_t room = model.context().device().on_host()
                           ? free_bytes
                           : home_limit - model.host_memory().peak_bytes;
  absl::Status fits;
  if (bytes > room) {
    fits = ResourceExhausted(
        "checkpoint.memory_every: found {} left of the limit of this rank's "
        "share of its host, expected the {} of two copies of its state and of "
        "its peer's; more hosts or ranks share it further, 0 makes none",
        BytesText(std::max<int64_t>(room, 0)), BytesText(bytes));
  }
  RETURN_IF_ERROR(control.Agree(fits, "memory for copies"));
  return bytes;
}

std::string CopiesText(const Job& job, const MemoryCopies* copies,
                       int64_t reserved) {
  if (job.checkpoint().memory_every() == 0) return "";
  return fmt::format(
      "copies every {} steps in {}, {} of rank 0's share, {}\n",
      job.checkpoint().memory_every(), copies->folder(), BytesText(reserved),
      copies->hosts().hosts() > 1
          ? "on its host and the next"
          : "on this host alone: for lost processes, not a lost host");
}

}  // namespace trireme
