#include "runtime/ops/cuda/elements.cuh"
#include "runtime/ops/cuda/families.h"

namespace trireme {
namespace {

constexpr int kThreads = 256;

// E4M3, exact: the lowest exponent has no hidden bit, and all ones is NaN.
__device__ inline float FromFloat8(uint8_t code) {
  const int exponent = (code >> 3) & 0xf;
  const int mantissa = code & 0x7;
  if ((code & 0x7f) == 0x7f) return __int_as_float(0x7fffffff);
  const float magnitude =
      exponent == 0
          ? static_cast<float>(mantissa) * 0.001953125f  // 2^-9
          : __int_as_float(((exponent + 120) << 23) | (mantissa << 20));
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

struct Levels {
  float values[16];
};

// One thread an element, as the host's kernel has it.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    DequantizeKernel(const QuantizedMatrix matrix, const Levels levels,
                     int64_t code_bytes, int64_t blocks, const uint8_t* codes,
                     const float* scales, T* values) {
  const int64_t at = GridThread();
  if (at >= matrix.rows * matrix.columns) return;
  const int64_t row = at / matrix.columns;
  const int64_t column = at - row * matrix.columns;
  const uint8_t* of_row = codes + row * code_bytes;
  float value = 0;
  int64_t block = 0;
  if (matrix.format == WeightFormat::kFloat8) {
    value = FromFloat8(of_row[column]);
  } else {
    value = levels.values[(of_row[column / 2] >> (column % 2 * 4)) & 0xf];
    block = (matrix.first_column + column) / kNormalFloat4Block -
            matrix.first_column / kNormalFloat4Block;
  }
  Narrow(static_cast<ComputeType<T>>(scales[row * blocks + block] * value),
         values[at]);
}

void Dequantize(Stream& stream, const QuantizedMatrix& matrix,
                const void* codes, const void* scales, DType dtype,
                void* values) {
  const int64_t elements = matrix.rows * matrix.columns;
  if (elements == 0) return;
  Levels levels;
  for (int i = 0; i < 16; ++i) levels.values[i] = kNormalFloat4Levels[i];
  DispatchElement(dtype, [&]<typename T>(T) {
    Launch({GridFor(elements, kThreads), kThreads, 0, Handle(stream)},
           DequantizeKernel<T>, matrix, levels, matrix.code_bytes(),
           matrix.blocks(), static_cast<const uint8_t*>(codes),
           static_cast<const float*>(scales), static_cast<T*>(values));
  });
}

}  // namespace

QuantizationKernels CudaQuantization() { return {.dequantize = Dequantize}; }

}  // namespace trireme
