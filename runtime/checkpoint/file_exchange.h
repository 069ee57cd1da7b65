// Files from one rank's host to another's, over a communicator: copies of
// checkpoints in the memory of other hosts.

#ifndef TRIREME_RUNTIME_CHECKPOINT_FILE_EXCHANGE_H_
#define TRIREME_RUNTIME_CHECKPOINT_FILE_EXCHANGE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "runtime/checkpoint/checksum.h"
#include "runtime/comm/communicator.h"

namespace trireme {

struct ExchangedFile {
  // At the other end, in the group.
  int peer = 0;
  std::string path;  // where it lies, or is to lie
  // What both ends know of it.
  CheckpointFile content;
};

// Sends files and writes those that others send; its memory is a few MiB for
// each peer and direction. Collective over the ranks that have any: what one
// sends to another the other receives, in the same order. Errors: a file that
// cannot be read or written, or that has not the content that it should; the
// other files are exchanged all the same, and those in error are not there.
absl::Status ExchangeFiles(Communicator& group,
                           const std::vector<ExchangedFile>& sent,
                           const std::vector<ExchangedFile>& received);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CHECKPOINT_FILE_EXCHANGE_H_
