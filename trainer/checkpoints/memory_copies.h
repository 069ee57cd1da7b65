// Copies of a run's state in the memory of its hosts, which outlive its
// processes: what is lost then are a few steps, not those since the last
// checkpoint on disk.
//
// A copy is a checkpoint (runtime/checkpoint/checkpoint_folder.h) whose files
// lie where they are made: in a folder of a memory file system (/dev/shm) on
// each host, what its ranks wrote and what the ranks of the host before it sent
// (HostLayout::PeerOf), so that a host may be lost with its memory. The
// manifest on a host lists what lies there; its metadata "memory_set", the same
// on all hosts, lists the files of all.
//
// At all times one copy is whole: the one before is removed when the next one
// is begun, and that ends in agreement.

#ifndef TRIREME_TRAINER_CHECKPOINTS_MEMORY_COPIES_H_
#define TRIREME_TRAINER_CHECKPOINTS_MEMORY_COPIES_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/checkpoint/checksum.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/control.h"
#include "trainer/checkpoints/host_layout.h"

namespace trireme {

// The files of a checkpoint, by name.
using CheckpointFiles = std::map<std::string, CheckpointFile>;

struct MemoryCopiesOptions {
  std::string root;        // "/dev/shm"
  std::string host;        // this one's name
  std::string run_folder;  // the run's, absolute
  // Of this run, so that one in the same place takes no other's copies for its
  // own.
  std::string id;
};

// A copy to go on from.
struct MemoryCopy {
  int64_t step = 0;
  int64_t consumed_samples = 0;
  std::map<std::string, std::string> metadata;
  CheckpointFiles files;
  // By host, those that lie there.
  std::vector<std::set<std::string>> here;
};

class MemoryCopies {
 public:
  // Collective over the world of `factory`, which outlives it. `control`: over
  // the same ranks.
  MemoryCopies(CommunicatorFactory& factory, Control& control,
               const MemoryCopiesOptions& options);

  // This host's folder of copies, and a copy's in it.
  const std::string& folder() const { return folder_; }
  std::string PathOf(int64_t step) const;
  const HostLayout& hosts() const { return hosts_; }
  const std::string& id() const { return options_.id; }

  // Makes the folder, for nobody else to read, and removes what runs that were
  // in this one's place left on the host. Collective, as what follows.
  absl::Status Begin(Control& control);
  // What two copies take of this rank's share of the host's memory, where a
  // copy takes `state_bytes` of what this rank has: its own and its peer's.
  // Errors: `root` has not as much room.
  absl::StatusOr<int64_t> Reserve(Control& control, int64_t state_bytes);

  // Of the copies of steps from `at_least` on, the newest of which every file
  // is whole on some host; the same on every rank. What is damaged is logged.
  absl::StatusOr<std::optional<MemoryCopy>> FindNewest(Control& control,
                                                       int64_t at_least);
  // Has this host have the copy's files that are `needed` by this rank, and
  // those needed by its others. Errors: a file that cannot be sent or written.
  absl::Status Bring(Control& control, MemoryCopy& copy,
                     const std::set<std::string>& needed);
  // Removes copies of later steps, from before which a run goes on, and what
  // is unfinished.
  absl::Status DropAfter(Control& control, int64_t step);
  // Removes all. Not collective.
  void Remove();

  // Of a copy that is being written: sends this rank's files to its peer, and
  // writes what this rank is sent. `by_rank`: what each rank has written.
  // Collective; on one thread at a time, which need not be that of the others.
  absl::Status SendToPeers(int64_t step,
                           const std::vector<CheckpointFiles>& by_rank);
  // Of those, what lies on this host afterwards.
  CheckpointFiles FilesHere(const std::vector<CheckpointFiles>& by_rank) const;

 private:
  // What this host has of a copy, as its leader says; empty where nothing is
  // whole.
  std::string OfferOf(int64_t step) const;

  const MemoryCopiesOptions options_;
  const HostLayout hosts_;
  const std::string prefix_;  // of the names of this place's folders
  const std::string folder_;
  const std::unique_ptr<Communicator> messages_;
};

// The metadata of a copy beside a checkpoint's: its files on all hosts.
std::pair<std::string, std::string> SetMetadata(const CheckpointFiles& files);

}  // namespace trireme

#endif  // TRIREME_TRAINER_CHECKPOINTS_MEMORY_COPIES_H_
