// Tensors of noise to compute with.

#ifndef TRIREME_TOOLS_BENCH_RANDOM_H_
#define TRIREME_TOOLS_BENCH_RANDOM_H_

#include <random>
#include <type_traits>

#include "runtime/device/tensor.h"

namespace trireme {

// Uniform in [−1, 1].
inline Tensor RandomTensor(Device& device, const Shape& shape, DType dtype) {
  std::minstd_rand engine(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  Tensor x = Tensor::Empty(device, shape, dtype);
  DispatchFloating(dtype, [&]<typename T>(T) {
    for (int64_t i = 0; i < x.num_elements(); ++i) {
      x.data<T>()[i] = T(uniform(engine));
    }
  });
  return x;
}

}  // namespace trireme

#endif  // TRIREME_TOOLS_BENCH_RANDOM_H_
