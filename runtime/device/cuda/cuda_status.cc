#include "runtime/device/cuda/cuda_status.h"

#include "runtime/core/log.h"

namespace trireme {

void CheckCuda(cudaError_t error, const char* what,
               std::source_location place) {
  if (error == cudaSuccess) return;
  LogMessage(place.file_name(), static_cast<int>(place.line()),
             LogSeverity::FATAL)
          .stream()
      << "CUDA: " << cudaGetErrorString(error) << " ("
      << cudaGetErrorName(error) << ") " << what;
}

}  // namespace trireme
