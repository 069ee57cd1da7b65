#include "models/shape_vae/fourier_features.h"

#include <cmath>

#include "runtime/core/log.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/pointwise.h"

namespace trireme {

Tensor FourierFeatures(const Tensor& positions, int64_t frequencies,
                       int64_t width, DType dtype) {
  CHECK_EQ(positions.dim(1), 3);
  CHECK_GE(width, 3 + 6 * frequencies);
  const int64_t rows = positions.dim(0);
  Tensor features = Tensor::Empty(positions.device(), {rows, width}, dtype,
                                  MemoryCategory::kActivations, "coordinates");
  WriteSlice(positions.dtype() == dtype ? positions : Cast(positions, dtype), 1,
             0, features);
  // Period 2^−frequencies: frequencies 1, 2, 4 ..; cosines come first.
  const Tensor waves =
      TimestepEmbedding(positions.Reshape({3 * rows}), 2 * frequencies,
                        std::exp2(-static_cast<double>(frequencies)), dtype);
  const auto place = [&](int64_t begin, int64_t column) {
    WriteSlice(CopySlice(waves, 1, begin, begin + frequencies)
                   .Reshape({rows, 3 * frequencies}),
               1, column, features);
  };
  place(frequencies, 3);
  place(0, 3 + 3 * frequencies);
  return features;
}

}  // namespace trireme
