// Saving a run's state while it trains on: each rank copies its parts aside and
// writes them into files of its own, the manifest comes last. A copy in the
// hosts' memory is the same in another place, and goes to a peer on the way.

#ifndef TRIREME_TRAINER_CHECKPOINTS_CHECKPOINT_SAVER_H_
#define TRIREME_TRAINER_CHECKPOINTS_CHECKPOINT_SAVER_H_

#include <cstdint>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "parallel/sharding/stored_tensors.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/checkpoint/staged_writer.h"
#include "runtime/device/cpu_device.h"
#include "trainer/checkpoints/checkpointing.h"
#include "trainer/checkpoints/memory_copies.h"
#include "trainer/rank/rank_model.h"

namespace trireme {

struct SaverOptions {
  std::string folder;  // of checkpoints
  int64_t keep = 0;    // newest ones kept; 0: all
  // What may be taken of the model's device to copy the state to. What does not
  // fit is written while training waits; 1 MiB of the host serves for that
  // where it is less.
  int64_t free_bytes = 0;
  // Where copies in memory go; outlives the saver. Null: there are none.
  MemoryCopies* copies = nullptr;
  // The state is copied while the next step computes, where all of it fits
  // aside: whoever trains calls Settle before it changes.
  bool behind_next_step = false;
  // For tests: called before the state is copied behind a step.
  std::function<void()> before_copy;
};

// Of what this rank writes of the model's state.
int64_t StateBytes(RankModel& model);

// What a saver takes in any case.
inline constexpr int64_t kLeastStagingBytes = 1 << 20;

// What it takes of a device on the host, of which `free_bytes` are free, for so
// much state; 0: kLeastStagingBytes of the host serve.
int64_t StagingOfDevice(int64_t state_bytes, int64_t free_bytes);

// Calls are collective over the world, unless they say otherwise, and come in
// the same order on all ranks.
class CheckpointSaver {
 public:
  // The model outlives it. Not collective.
  CheckpointSaver(RankModel& model, SaverOptions options);

  enum class Place { kDisk, kMemory };

  // Copies the state at `progress`, or begins to (behind_next_step); returns
  // when training may go on. The save before has come to its end. The same
  // status on every rank.
  absl::Status Start(const TrainingProgress& progress,
                     Place place = Place::kDisk);
  // Returns when the state may change. Not collective.
  void Settle();

  // A save was started and has not come to its end. The same on every rank; not
  // collective.
  bool pending() const { return phase_ != Phase::kNone; }
  // This rank is at work on it. Not collective.
  bool Busy() const { return copying_.valid() || !writer_->Idle(); }
  // To be called when a save is pending and no rank is busy: brings it a step
  // on, the last of which ends it. The same status on every rank; an error ends
  // it, and there is no new checkpoint.
  absl::Status Advance();
  // Waits for a pending save's end.
  absl::Status Finish();
  // After an error that others may not know of: ends a pending save where that
  // takes this rank alone, which is where it has no others, or has to name what
  // all have written. Not collective.
  absl::Status FinishAlone();
  // The run goes on from `step`: copies in memory of later ones are none of
  // its.
  absl::Status DropCopiesAfter(int64_t step);

  // This rank's part of the state, and what of that is copied aside at once.
  // Not collective.
  int64_t state_bytes() const { return state_bytes_; }
  int64_t staging_bytes() const { return writer_->staging_bytes(); }
  // Of that, what was taken of the model's device.
  int64_t device_bytes() const { return device_bytes_; }
  // Saves that succeeded, to disk and to memory, and the seconds for which
  // training waited for all.
  int saves() const { return saves_; }
  int copies() const { return copies_; }
  double seconds() const { return seconds_; }

 private:
  enum class Phase { kNone, kWriting, kSending, kCommitting };

  // A set of logical tensors that is saved.
  struct Set {
    std::string name;  // "model.safetensors"
    std::vector<TensorPart> (*parts)(RankModel&);
    std::optional<StoredFile> file;  // laid out at the first save
  };

  bool leader() const;
  absl::Status Agree(const absl::Status& status);
  bool CopiesBehind();
  absl::Status Write();
  void CopyFiles();
  void DropParts();
  // What each rank has written: on every rank of a copy in memory, else on
  // rank 0.
  void GatherFiles(const std::map<std::string, CheckpointFile>& written);
  void TellSameWeights();
  void Commit();

  RankModel& model_;
  const SaverOptions options_;
  std::vector<Set> sets_;
  const int64_t state_bytes_;
  int64_t device_bytes_ = 0;
  std::unique_ptr<CpuDevice> host_;
  std::optional<bool> behind_;  // CopiesBehind, once it is known

  Phase phase_ = Phase::kNone;
  TrainingProgress progress_;
  std::map<std::string, std::string> metadata_;
  std::string path_;  // of the files
  Place place_ = Place::kDisk;
  // Of rank 0; of a copy in memory of each host's first.
  std::unique_ptr<CheckpointWriter> checkpoint_;
  std::vector<CheckpointFiles> by_rank_;  // GatherFiles
  // Rank 0's: of the last checkpoint's weights, by name.
  std::map<std::string, CheckpointFile> weights_;
  int64_t weights_step_ = 0;
  int saves_ = 0, copies_ = 0;
  double seconds_ = 0;
  // Its thread uses what is above.
  std::unique_ptr<StagedWriter> writer_;
  // CopyFiles, which uses the writer, until Settle.
  std::future<void> copying_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_CHECKPOINTS_CHECKPOINT_SAVER_H_
