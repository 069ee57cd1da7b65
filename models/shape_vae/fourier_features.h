// Coordinates as networks see them: themselves, then sin(2^i x) and cos(2^i x)
// for i < frequencies, coordinate by coordinate.

#ifndef TRIREME_MODELS_SHAPE_VAE_FOURIER_FEATURES_H_
#define TRIREME_MODELS_SHAPE_VAE_FOURIER_FEATURES_H_

#include <cstdint>

#include "runtime/device/tensor.h"

namespace trireme {

// positions [rows, 3], fp32 or fp64, to [rows, width] of dtype, whose first
// 3 + 6·frequencies columns it fills.
Tensor FourierFeatures(const Tensor& positions, int64_t frequencies,
                       int64_t width, DType dtype);

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_VAE_FOURIER_FEATURES_H_
