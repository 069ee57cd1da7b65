#include "trainer/checkpoints/checkpoint_saver.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <limits>
#include <span>
#include <string_view>
#include <utility>

#include "nlohmann/json.hpp"
#include "runtime/comm/patience.h"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "trainer/run/run_folder.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

// Of the files of the weights, however many they are.
constexpr std::string_view kWeightsPrefix = "model";

std::string FilesText(const std::map<std::string, CheckpointFile>& files) {
  Json list = Json::object();
  for (const auto& [path, file] : files) {
    list[std::filesystem::path(path).filename()] = {file.bytes, file.xxh64,
                                                    file.pieces};
  }
  return list.dump();
}

}  // namespace

int64_t StateBytes(RankModel& model) {
  int64_t bytes = 0;
  for (const auto& parts :
       {model.MasterParts(), model.MomentParts(/*second=*/false),
        model.MomentParts(/*second=*/true), model.EmaParts()}) {
    for (const TensorPart& part : WrittenParts(model.grid(), parts)) {
      bytes += part.local.bytes();
    }
  }
  return bytes;
}

int64_t StagingOfDevice(int64_t state_bytes, int64_t free_bytes) {
  // A rank may have nothing to write.
  const int64_t most = Arena::Aligned(std::max<int64_t>(1, state_bytes));
  const int64_t wanted =
      std::min(most, free_bytes / Device::kAlignment * Device::kAlignment);
  return wanted >= kLeastStagingBytes || wanted == most ? wanted : 0;
}

CheckpointSaver::CheckpointSaver(RankModel& model, SaverOptions options)
    : model_(model),
      options_(std::move(options)),
      state_bytes_(StateBytes(model)) {
  sets_ = {{.name = kWeightsFile,
            .parts = [](RankModel& m) { return m.MasterParts(); }},
           {.name = kFirstMomentFile,
            .parts = [](RankModel& m) { return m.MomentParts(false); }},
           {.name = kSecondMomentFile,
            .parts = [](RankModel& m) { return m.MomentParts(true); }}};
  if (model_.setup().optimizer.ema_decay > 0) {
    sets_.push_back(
        {.name = kEmaFile, .parts = [](RankModel& m) { return m.EmaParts(); }});
  }
  Device& device = model_.context().device();
  if (device.on_host()) {
    device_bytes_ = StagingOfDevice(state_bytes_, options_.free_bytes);
  }
  if (device_bytes_ == 0) {
    host_ = std::make_unique<CpuDevice>(std::numeric_limits<int64_t>::max());
  }
  writer_ = std::make_unique<StagedWriter>(Tensor::Empty(
      host_ ? *host_ : device, {host_ ? kLeastStagingBytes : device_bytes_},
      DType::kUint8, MemoryCategory::kWorkspace, "staging of checkpoints"));
}

bool CheckpointSaver::leader() const {
  return model_.context().communicators().world().rank() == 0;
}

absl::Status CheckpointSaver::Agree(const absl::Status& status) {
  return model_.context().communicators().control().Agree(status,
                                                          "checkpoint verdict");
}

absl::Status CheckpointSaver::Start(const TrainingProgress& progress,
                                    Place place) {
  CHECK(!pending());
  const auto start = std::chrono::steady_clock::now();
  progress_ = progress;
  place_ = place;
  metadata_ = CheckpointMetadata(model_, progress);
  const bool on_disk = place == Place::kDisk;
  const std::string& folder =
      on_disk ? options_.folder : options_.copies->folder();
  // Out of memory there is nothing to save.
  absl::Status status = model_.status();
  if (status.ok() && (on_disk ? leader() : options_.copies->hosts().leads())) {
    const auto create = [&]() -> absl::Status {
      // All hosts have the newest copy by now.
      if (!on_disk) RETURN_IF_ERROR(PruneCheckpoints(folder, 1));
      ASSIGN_OR_RETURN(checkpoint_,
                       CheckpointWriter::Create(folder, progress.step));
      return absl::OkStatus();
    };
    status = create();
  }
  RETURN_IF_ERROR(Agree(status));
  path_ = CheckpointWriter::PartialFolder(folder, progress.step) + "/";
  Communicators& communicators = model_.context().communicators();
  if (on_disk) {
    communicators.control().Broadcast(path_, "the checkpoint's folder");
  }
  const bool behind = CopiesBehind();
  const absl::Status written = Write();
  // A rank whose state does not fit aside takes as long as its disk does.
  if (!behind) AwaitAllPatiently(communicators.world(), "checkpoint");
  seconds_ +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  RETURN_IF_ERROR(written);
  phase_ = Phase::kWriting;
  return absl::OkStatus();
}

// The same on every rank: else one that waits for its disk would keep others
// waiting in the middle of a step. What lies on a drive is there by turns; a
// device that is not the host's is given work by one thread alone.
bool CheckpointSaver::CopiesBehind() {
  if (!behind_.has_value()) {
    int64_t hindered =
        !options_.behind_next_step || !model_.context().device().on_host() ||
        staging_bytes() < state_bytes_ || model_.streamer() != nullptr;
    model_.context().communicators().control().Max(std::span(&hindered, 1),
                                                   "checkpoint's memory");
    behind_ = hindered == 0;
  }
  return *behind_;
}

void CheckpointSaver::Settle() {
  if (!copying_.valid()) return;
  const auto start = std::chrono::steady_clock::now();
  copying_.get();
  DropParts();
  seconds_ +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
}

absl::Status CheckpointSaver::Write() {
  for (Set& set : sets_) {
    if (set.file.has_value()) {
      set.file->parts = WrittenParts(model_.grid(), set.parts(model_));
    } else {
      ASSIGN_OR_RETURN(set.file, LayOutStoredFile(model_.context(), set.name,
                                                  set.parts(model_)));
      // Of a copy each host has it.
      if (options_.copies != nullptr) {
        Control& control = model_.context().communicators().control();
        control.Broadcast(set.file->index_name, "checkpoint's index");
        control.Broadcast(set.file->index, "checkpoint's index");
      }
    }
  }
  if (CopiesBehind()) {
    copying_ = std::async(std::launch::async, [this] {
      if (options_.before_copy) options_.before_copy();
      CopyFiles();
    });
    return absl::OkStatus();
  }
  CopyFiles();
  DropParts();
  // What was read of a drive that has failed is in no checkpoint.
  writer_->Then([status = model_.status()] { return status; });
  return absl::OkStatus();
}

void CheckpointSaver::CopyFiles() {
  // On another host a folder may be seen later than it was made.
  writer_->Then([path = path_] { return MakeDirectories(path); });
  for (Set& set : sets_) {
    StoredFile& file = *set.file;
    if (!file.name.empty()) {
      std::vector<SafetensorsEntry> entries;
      for (const TensorPart& part : file.parts) {
        entries.push_back(EntryOf(part));
      }
      writer_->Begin(path_ + file.name, std::move(entries));
      for (const TensorPart& part : file.parts) {
        writer_->Append(part.name, part.local);
      }
      writer_->End();
    }
  }
}

void CheckpointSaver::DropParts() {
  for (Set& set : sets_) {
    if (set.file.has_value()) set.file->parts.clear();
  }
}

absl::Status CheckpointSaver::Advance() {
  CHECK(pending());
  Settle();
  const auto written = writer_->Finish();
  const absl::Status verdict = Agree(written.status());
  if (!verdict.ok() || phase_ == Phase::kCommitting) {
    phase_ = Phase::kNone;
    checkpoint_.reset();
    (place_ == Place::kDisk ? saves_ : copies_) += verdict.ok() ? 1 : 0;
    return verdict;
  }
  if (phase_ == Phase::kWriting) {
    GatherFiles(*written);
    if (leader()) TellSameWeights();
    // All have written theirs, so that no peer waits in vain.
    if (place_ == Place::kMemory) {
      phase_ = Phase::kSending;
      writer_->Then([this] {
        return options_.copies->SendToPeers(progress_.step, by_rank_);
      });
      return absl::OkStatus();
    }
  }
  phase_ = Phase::kCommitting;
  if (checkpoint_ != nullptr) Commit();
  return absl::OkStatus();
}

void CheckpointSaver::GatherFiles(
    const std::map<std::string, CheckpointFile>& written) {
  Control& control = model_.context().communicators().control();
  const std::string own = FilesText(written);
  const std::vector<std::string> lists =
      place_ == Place::kMemory ? control.AllGather(own, "copy's files")
                               : control.Gather(own, "checkpoint's files");
  by_rank_.clear();
  for (const std::string& text : lists) {
    const Json list = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    CHECK(list.is_object()) << "a rank sent a broken list of files";
    CheckpointFiles& files = by_rank_.emplace_back();
    for (const auto& [name, file] : list.items()) {
      files[name] = {.bytes = file[0].get<int64_t>(),
                     .xxh64 = file[1].get<std::string>(),
                     .pieces = file[2].get<std::string>()};
    }
  }
}

void CheckpointSaver::TellSameWeights() {
  CheckpointFiles weights;
  for (const CheckpointFiles& files : by_rank_) {
    for (const auto& [name, file] : files) {
      if (name.starts_with(kWeightsPrefix)) weights[name] = file;
    }
  }
  if (weights == weights_ && weights_step_ != progress_.step) {
    LOG(WARNING) << "step " << progress_.step << ": the weights are those of "
                 << "step " << weights_step_ << ", bit for bit";
  }
  weights_ = std::move(weights);
  weights_step_ = progress_.step;
}

void CheckpointSaver::Commit() {
  const bool on_disk = place_ == Place::kDisk;
  CheckpointFiles all;
  for (const CheckpointFiles& files : by_rank_) {
    all.insert(files.begin(), files.end());
  }
  for (const auto& [name, file] :
       on_disk ? all : options_.copies->FilesHere(by_rank_)) {
    checkpoint_->Add(name, file);
  }
  for (const Set& set : sets_) {
    if (set.file->index_name.empty()) continue;
    Checksum checksum;
    checksum.Update(set.file->index);
    all[set.file->index_name] = checksum.Result();
    writer_->Then([this, &file = *set.file] {
      return WriteFileAtomically(checkpoint_->PathOf(file.index_name),
                                 file.index);
    });
  }
  if (!on_disk) metadata_.insert(SetMetadata(all));
  writer_->Then([this, on_disk]() -> absl::Status {
    RETURN_IF_ERROR(checkpoint_->Commit(metadata_, progress_.consumed_samples));
    // Of copies the one before stays until all hosts have the new one.
    if (!on_disk) return absl::OkStatus();
    // The new one is there all the same.
    const absl::Status pruned =
        PruneCheckpoints(options_.folder, options_.keep);
    if (!pruned.ok()) {
      LOG(WARNING) << "an older checkpoint stays: " << MessageOf(pruned);
    }
    return absl::OkStatus();
  });
}

absl::Status CheckpointSaver::DropCopiesAfter(int64_t step) {
  if (options_.copies == nullptr) return absl::OkStatus();
  return options_.copies->DropAfter(model_.context().communicators().control(),
                                    step);
}

absl::Status CheckpointSaver::FinishAlone() {
  if (!pending()) return absl::OkStatus();
  if (model_.context().communicators().world().size() == 1) return Finish();
  Settle();
  if (phase_ != Phase::kCommitting || checkpoint_ == nullptr) {
    return absl::OkStatus();
  }
  phase_ = Phase::kNone;
  const absl::Status committed = writer_->Finish().status();
  checkpoint_.reset();
  return committed;
}

absl::Status CheckpointSaver::Finish() {
  Settle();
  const auto start = std::chrono::steady_clock::now();
  Communicators& communicators = model_.context().communicators();
  absl::Status status;
  while (pending() && status.ok()) {
    writer_->WaitUntilIdle();
    AwaitAllPatiently(communicators.world(), "checkpoint");
    status = Advance();
  }
  seconds_ +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  return status;
}

}  // namespace trireme
