// What kernels of random numbers are asked for.

#ifndef TRIREME_RUNTIME_OPS_RANDOM_FILL_H_
#define TRIREME_RUNTIME_OPS_RANDOM_FILL_H_

#include <cstdint>

namespace trireme {

enum class Distribution {
  kNormal,   // scale·N(0, 1)
  kUniform,  // uniform in ±scale
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_RANDOM_FILL_H_
