// What kernels do with operands that only they can see to be wrong: they name
// them and end the process, as a failed CHECK does on the host.

#ifndef TRIREME_RUNTIME_OPS_CUDA_CHECK_CUH_
#define TRIREME_RUNTIME_OPS_CUDA_CHECK_CUH_

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "runtime/device/cuda/kernel.cuh"

namespace trireme {

// That an index lies in [begin, end); returns it.
__device__ inline int64_t CheckedIndex(int64_t index, int64_t begin,
                                       int64_t end, const char* what) {
  if (index >= begin && index < end) return index;
  printf("%s %lld is not in [%lld, %lld)\n", what,
         static_cast<long long>(index), static_cast<long long>(begin),
         static_cast<long long>(end));
#if defined(__CUDACC__)
  __trap();
  // Nothing need be kept while the text is printed.
  __builtin_unreachable();
#else
  std::abort();
#endif
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_CHECK_CUH_
