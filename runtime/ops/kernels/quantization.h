// Kernels of runtime/ops/quantization.h.

#ifndef TRIREME_RUNTIME_OPS_KERNELS_QUANTIZATION_H_
#define TRIREME_RUNTIME_OPS_KERNELS_QUANTIZATION_H_

#include <cstdint>
#include <utility>

#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"

namespace trireme {

// What the elements of a matrix of weights are kept in.
enum class WeightFormat : uint8_t {
  // Its dtype.
  kFull,
  // FP8 E4M3 (Micikevicius et al., "FP8 formats for deep learning") with one
  // scale for each row: |w| <= 448 scale.
  kFloat8,
  // NF4 (Dettmers et al., "QLoRA"), two elements a byte, the first in the lower
  // bits, with one scale for each 64 neighbours of a row: |w| <= scale.
  kNormalFloat4,
};

inline constexpr int64_t kNormalFloat4Block = 64;
// The levels of the appendix of "QLoRA", as its authors' code has them.
inline constexpr float kNormalFloat4Levels[16] = {-1.0f,
                                                  -0.6961928009986877f,
                                                  -0.5250730514526367f,
                                                  -0.39491748809814453f,
                                                  -0.28444138169288635f,
                                                  -0.18477343022823334f,
                                                  -0.09105003625154495f,
                                                  0.0f,
                                                  0.07958029955625534f,
                                                  0.16093020141124725f,
                                                  0.24611230194568634f,
                                                  0.33791524171829224f,
                                                  0.44070982933044434f,
                                                  0.5626170039176941f,
                                                  0.7229568362236023f,
                                                  1.0f};

// Columns [first_column, first_column + columns) of rows whose blocks are
// counted from column 0.
struct QuantizedMatrix {
  WeightFormat format = WeightFormat::kFull;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t first_column = 0;

  int64_t code_bytes() const {  // of a row
    return format == WeightFormat::kFloat8 ? columns : (columns + 1) / 2;
  }
  int64_t block_of(int64_t column) const {
    return format == WeightFormat::kFloat8
               ? 0
               : (first_column + column) / kNormalFloat4Block -
                     first_column / kNormalFloat4Block;
  }
  int64_t blocks() const { return block_of(columns - 1) + 1; }  // of a row

  bool operator==(const QuantizedMatrix&) const = default;

  template <typename H>
  friend H AbslHashValue(H h, const QuantizedMatrix& m) {
    return H::combine(std::move(h), m.format, m.rows, m.columns,
                      m.first_column);
  }
};

// A matrix of FP8 codes whose rows are whole.
inline QuantizedMatrix Float8Matrix(int64_t rows, int64_t columns) {
  return {.format = WeightFormat::kFloat8, .rows = rows, .columns = columns};
}

// The same of operands of a product, which may have one scale for all rows.
inline QuantizedMatrix Float8Codes(int64_t rows, int64_t columns,
                                   bool one_scale) {
  return one_scale ? Float8Matrix(1, rows * columns)
                   : Float8Matrix(rows, columns);
}

// What quantising changed: squared differences, beside the squares of what was
// there.
struct QuantizationError {
  double squared_differences = 0;
  double squares = 0;
};

struct QuantizationKernels {
  // values[rows, columns] of the dtype = what codes and scales stand for.
  void (*dequantize)(Stream&, const QuantizedMatrix&, const void* codes,
                     const void* scales, DType, void* values);
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_KERNELS_QUANTIZATION_H_
