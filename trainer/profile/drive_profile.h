// How fast a folder's drive takes and gives what offload.nvme keeps there.

#ifndef TRIREME_TRAINER_PROFILE_DRIVE_PROFILE_H_
#define TRIREME_TRAINER_PROFILE_DRIVE_PROFILE_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"

namespace trireme {

// Of one process, while all of its machine's do the same; bytes/s.
struct DriveRates {
  double write_bytes_per_s = 0;
  double read_bytes_per_s = 0;
  // Either way at once, as a step's updates have it.
  double both_bytes_per_s = 0;
  // Left in the folder, after what was measured with is gone.
  int64_t free_bytes = 0;
  // "io_uring with registered buffers, past the page cache".
  std::string how;
};

// Writes `bytes` to a file in the folder (runtime/device/nvme), reads them, and
// reads them once more while as many are written, in whole buckets as the state
// streamer does. What is written is random: drives that compress would be
// faster with zeros. `bytes` more than a drive's cache takes give what it
// sustains. `begin` is called three times, before each, whether or not anything
// has failed: where processes begin together. Errors: those of NvmeDevice.
absl::StatusOr<DriveRates> MeasureDrive(const std::string& folder,
                                        int64_t bytes,
                                        const std::function<void()>& begin);

}  // namespace trireme

#endif  // TRIREME_TRAINER_PROFILE_DRIVE_PROFILE_H_
