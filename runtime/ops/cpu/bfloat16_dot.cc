#include "runtime/ops/cpu/bfloat16_dot.h"

#include <oneapi/dnnl/dnnl.hpp>

namespace trireme {

// What oneDNN may use, so that its environment variable counts here as well.
bool UsesBFloat16Dots() {
  static const bool uses =
      dnnl::get_effective_cpu_isa() == dnnl::cpu_isa::avx512_core_bf16;
  return uses;
}

}  // namespace trireme
