#include "runtime/device/cuda/emulation/refusal.h"

#include <cstdlib>

#include "runtime/core/log.h"

namespace trireme::cuda_emulation {

void Refuse(const std::string& what) {
  LOG(FATAL) << "emulated GPU: " << what;
  std::abort();
}

}  // namespace trireme::cuda_emulation
