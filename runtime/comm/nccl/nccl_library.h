// NVIDIA's library of messages between GPUs, which is looked for when a program
// first needs it.

#ifndef TRIREME_RUNTIME_COMM_NCCL_NCCL_LIBRARY_H_
#define TRIREME_RUNTIME_COMM_NCCL_NCCL_LIBRARY_H_

#include "absl/status/status.h"

namespace trireme {

// NotFound where it is not there.
absl::Status FindNccl();

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_NCCL_NCCL_LIBRARY_H_
