// What nccl_world.h is in a program that is built without CUDA.

#include "runtime/comm/nccl/nccl_world.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {

absl::StatusOr<std::string> FindNcclVersion() {
  return FailedPrecondition("this program was built without CUDA");
}

std::unique_ptr<CommunicatorFactory> MakeNcclWorld(CommunicatorFactory&, int,
                                                   const HangWatch&) {
  LOG(FATAL) << "NCCL in a program that was built without CUDA";
  return nullptr;
}

}  // namespace trireme
