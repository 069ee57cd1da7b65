// The folder of one checkpoint, whole or not there at all: files are written
// into step_00000100.partial, the manifest last, then the folder is renamed to
// step_00000100. What a crash leaves behind is a .partial folder, which nobody
// reads and the next checkpoint removes.
//
// manifest.json: {"version": 1, "step", "consumed_samples", "metadata": {..},
// "files": {name: {"bytes", "xxh64"}}}; of files of more than 64 MiB also
// "pieces_xxh64", the checksums of each 64 MiB one after the other, which older
// checkpoints do not have.

#ifndef TRIREME_RUNTIME_CHECKPOINT_CHECKPOINT_FOLDER_H_
#define TRIREME_RUNTIME_CHECKPOINT_CHECKPOINT_FOLDER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/checkpoint/checksum.h"

namespace trireme {

class CheckpointWriter {
 public:
  // Starts the checkpoint of `step` in `folder`, which is made if there is
  // none. What crashed jobs left unfinished there, of any step, is removed: a
  // folder has one writer at a time.
  static absl::StatusOr<std::unique_ptr<CheckpointWriter>> Create(
      const std::string& folder, int64_t step);

  // Where to write a file of the checkpoint.
  std::string PathOf(const std::string& file) const {
    return partial_ + "/" + file;
  }
  // Where others write files of the checkpoint of `step`, while it has a
  // writer.
  static std::string PartialFolder(const std::string& folder, int64_t step);
  // What is known of a file since it was written and synced; Commit reads
  // others to find out.
  void Add(const std::string& file, CheckpointFile known);
  // Writes the manifest of all files there are, among them all that are known,
  // and gives the folder its name, replacing an older checkpoint of the same
  // step. Files lie in the folder itself, not in folders of their own. Errors:
  // one that is known is not there.
  absl::Status Commit(const std::map<std::string, std::string>& metadata,
                      int64_t consumed_samples);

 private:
  CheckpointWriter(std::string folder, int64_t step);

  std::string folder_;
  int64_t step_;
  std::string final_;
  std::string partial_;
  std::map<std::string, CheckpointFile> known_;
};

struct Manifest {
  int64_t step = 0;
  int64_t consumed_samples = 0;
  std::map<std::string, std::string> metadata;
  std::map<std::string, CheckpointFile> files;
};

// Errors: no or a broken manifest, a file that is missing or has another size.
absl::StatusOr<Manifest> ReadManifest(const std::string& checkpoint);

// Reads every file, several and several pieces of one at once, and compares the
// checksums. The first that differs, by name and place, is told. `stop` is
// asked now and then, by this thread: Cancelled where it says so.
absl::Status VerifyChecksums(const std::string& checkpoint,
                             const std::function<bool()>& stop = nullptr);

// Of what CheckpointWriters began and crashed over: what is whole but for its
// name gets that, as where names cannot be exchanged it may be the only one of
// its step; the rest is removed. Before a run chooses what it goes on from:
// later such a checkpoint would be one of another history. Nobody else writes
// there meanwhile.
absl::Status RecoverCheckpoints(const std::string& folder);

// The complete checkpoint of the highest step. NotFound if there is none;
// another error if `folder` cannot be read.
absl::StatusOr<std::string> LatestCheckpoint(const std::string& folder);

// The steps of the checkpoints in `folder`, ascending, damaged ones too. None,
// if there is no such folder yet.
absl::StatusOr<std::vector<int64_t>> CheckpointSteps(const std::string& folder);

// "step_00000100".
std::string CheckpointName(int64_t step);

// The step of a checkpoint's folder by its name, "step_00000100"; nothing for
// other names.
std::optional<int64_t> StepOfName(const std::string& name);

struct WholeCheckpoint {
  std::string path;
  Manifest manifest;
  // What is wrong with each newer one.
  std::vector<absl::Status> damaged;
};

// Reads the newest checkpoint, or that of `step`, and where it is damaged those
// before it, until the files of one agree with their checksums. Errors:
// NotFound, there is none; DataLoss, none is whole, with what is wrong with
// each.
absl::StatusOr<WholeCheckpoint> FindWholeCheckpoint(
    const std::string& folder, std::optional<int64_t> step = std::nullopt);

// Renames what there is of steps after `step`, from which a run goes on, to
// step_00000100.aside; what had that name is removed. The run's new checkpoints
// then are its newest.
absl::Status SetLaterCheckpointsAside(const std::string& folder, int64_t step);

// Removes what there is of steps after `step`, and what is unfinished of any.
absl::Status RemoveLaterCheckpoints(const std::string& folder, int64_t step);

// Removes all but the `keep` newest complete checkpoints; 0 keeps all.
absl::Status PruneCheckpoints(const std::string& folder, int64_t keep);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CHECKPOINT_CHECKPOINT_FOLDER_H_
