// Communicators by NCCL, for those who know nothing of CUDA. A program that is
// built without CUDA has none, and says so.

#ifndef TRIREME_RUNTIME_COMM_NCCL_NCCL_WORLD_H_
#define TRIREME_RUNTIME_COMM_NCCL_NCCL_WORLD_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/wait_registry.h"

namespace trireme {

// "NCCL 2.27.3". NotFound: the library is not there; FailedPrecondition: the
// program was built without CUDA.
absl::StatusOr<std::string> FindNcclVersion();

// A factory whose communicators move the tensors of GPU `gpu` by NCCL, and all
// else as those of `inner`, which outlives it; see nccl_communicator.h. No
// other rank has the GPU, NCCL is there, and the thread that drives the GPU
// calls Create. `watch` may be empty.
std::unique_ptr<CommunicatorFactory> MakeNcclWorld(CommunicatorFactory& inner,
                                                   int gpu,
                                                   const HangWatch& watch);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_NCCL_NCCL_WORLD_H_
