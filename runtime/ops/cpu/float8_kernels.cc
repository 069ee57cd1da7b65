#include "runtime/ops/cpu/float8_kernels.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "runtime/ops/cpu/float8_codes.h"
#include "runtime/ops/cpu/parallel_rows.h"

namespace trireme {
namespace {

// So many columns are read from row to row together, about a cache line each.
constexpr int64_t kColumnsTogether = 64;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

float Magnitude(float x) {
  const float magnitude = std::abs(x);
  // NaN, too.
  return magnitude <= std::numeric_limits<float>::max() ? magnitude : kInfinity;
}

float ScaleFor(float largest) {
  if (largest == 0 || largest == kInfinity) return largest;
  int exponent = 0;
  const float fraction = std::frexp(largest, &exponent);
  // 448 is 0.875·2^9.
  const int of_scale = exponent - (fraction <= 0.875f ? 9 : 8);
  return std::ldexp(1.0f, std::max(of_scale, -126));
}

uint8_t CodeOf(float x, float scale) {
  if (scale == kInfinity) return kFloat8Nan;
  return scale == 0 ? 0 : ToFloat8Code(x / scale);
}

template <typename F>
void ForColumnBlocks(const Float8Vectors& vectors, F&& f) {
  const int64_t blocks =
      (vectors.columns + kColumnsTogether - 1) / kColumnsTogether;
  ParallelRows(blocks, kColumnsTogether * vectors.rows, [&](int64_t block) {
    const int64_t begin = block * kColumnsTogether;
    f(begin, std::min(kColumnsTogether, vectors.columns - begin));
  });
}

template <typename T>
void ScalesOf(const Float8Vectors& vectors, const T* matrix, float* scales) {
  if (!vectors.of_columns) {
    ParallelRows(vectors.rows, vectors.columns, [&](int64_t row) {
      const T* const x = matrix + row * vectors.columns;
      float largest = 0;
      for (int64_t i = 0; i < vectors.columns; ++i) {
        largest = std::max(largest, Magnitude(static_cast<float>(x[i])));
      }
      scales[row] = ScaleFor(largest);
    });
    return;
  }
  ForColumnBlocks(vectors, [&](int64_t begin, int64_t count) {
    std::array<float, kColumnsTogether> largest = {};
    for (int64_t row = 0; row < vectors.rows; ++row) {
      const T* const x = matrix + row * vectors.columns + begin;
      for (int64_t i = 0; i < count; ++i) {
        largest[i] = std::max(largest[i], Magnitude(static_cast<float>(x[i])));
      }
    }
    for (int64_t i = 0; i < count; ++i)
      scales[begin + i] = ScaleFor(largest[i]);
  });
}

template <typename T>
void CodesOf(const Float8Vectors& vectors, const T* matrix, const float* scales,
             uint8_t* codes) {
  if (!vectors.of_columns) {
    ParallelRows(vectors.rows, vectors.columns, [&](int64_t row) {
      const int64_t at = row * vectors.columns;
      for (int64_t i = at; i < at + vectors.columns; ++i) {
        codes[i] = CodeOf(static_cast<float>(matrix[i]), scales[row]);
      }
    });
    return;
  }
  ForColumnBlocks(vectors, [&](int64_t begin, int64_t count) {
    for (int64_t row = 0; row < vectors.rows; ++row) {
      const T* const x = matrix + row * vectors.columns;
      for (int64_t column = begin; column < begin + count; ++column) {
        codes[column * vectors.rows + row] =
            CodeOf(static_cast<float>(x[column]), scales[column]);
      }
    }
  });
}

// Codes of part of a matrix by one scale, if they are asked for; returns the
// largest magnitude of the part.
template <typename T>
float CodesOfPart(const Float8Vectors& vectors, const T* matrix, int64_t row,
                  int64_t begin, int64_t end, const float* scale,
                  uint8_t* codes) {
  float largest = 0;
  for (int64_t column = begin; column < end; ++column) {
    const auto x = static_cast<float>(matrix[row * vectors.columns + column]);
    const float magnitude = Magnitude(x);
    largest = std::max(largest, magnitude);
    if (codes == nullptr) continue;
    codes[vectors.of_columns ? column * vectors.rows + row
                             : row * vectors.columns + column] =
        magnitude == kInfinity ? kFloat8Nan : CodeOf(x, *scale);
  }
  return largest;
}

template <typename T>
void CodesOfWhole(const Float8Vectors& vectors, const T* matrix,
                  const float* scale, float* needed, uint8_t* codes) {
  const int64_t blocks =
      (vectors.columns + kColumnsTogether - 1) / kColumnsTogether;
  std::vector<float> largest(vectors.of_columns ? blocks : vectors.rows, 0.0f);
  if (vectors.of_columns) {
    ForColumnBlocks(vectors, [&](int64_t begin, int64_t count) {
      float& of_block = largest[begin / kColumnsTogether];
      for (int64_t row = 0; row < vectors.rows; ++row) {
        of_block = std::max(of_block, CodesOfPart(vectors, matrix, row, begin,
                                                  begin + count, scale, codes));
      }
    });
  } else {
    ParallelRows(vectors.rows, vectors.columns, [&](int64_t row) {
      largest[row] =
          CodesOfPart(vectors, matrix, row, 0, vectors.columns, scale, codes);
    });
  }
  for (const float part : largest) *needed = std::max(*needed, ScaleFor(part));
}

}  // namespace

void Float8ScalesKernel(const Float8Vectors& vectors, const void* matrix,
                        void* scales) {
  DispatchFloating(vectors.dtype, [&](auto element) {
    ScalesOf(vectors, static_cast<const decltype(element)*>(matrix),
             static_cast<float*>(scales));
  });
}

void QuantizeFloat8Kernel(const Float8Vectors& vectors, const void* matrix,
                          const void* scales, void* codes) {
  DispatchFloating(vectors.dtype, [&](auto element) {
    CodesOf(vectors, static_cast<const decltype(element)*>(matrix),
            static_cast<const float*>(scales), static_cast<uint8_t*>(codes));
  });
}

void QuantizeFloat8WholeKernel(const Float8Vectors& vectors, const void* matrix,
                               const void* scale, void* needed, void* codes) {
  DispatchFloating(vectors.dtype, [&](auto element) {
    CodesOfWhole(vectors, static_cast<const decltype(element)*>(matrix),
                 static_cast<const float*>(scale), static_cast<float*>(needed),
                 static_cast<uint8_t*>(codes));
  });
}

}  // namespace trireme
