#include "runtime/ops/cpu/quantization_kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "runtime/core/log.h"
#include "runtime/ops/cpu/float8_codes.h"
#include "runtime/ops/cpu/parallel_rows.h"
#include "runtime/ops/kernels/float8.h"

namespace trireme {
namespace {

uint8_t ToNormalFloat4(float x) {
  int nearest = 0;
  for (int level = 1; level < 16; ++level) {
    if (std::abs(x - kNormalFloat4Levels[level]) <
        std::abs(x - kNormalFloat4Levels[nearest])) {
      nearest = level;
    }
  }
  return static_cast<uint8_t>(nearest);
}

float DecodedBy(const QuantizedMatrix& layout, const uint8_t* codes,
                int64_t column) {
  if (layout.format == WeightFormat::kFloat8) {
    return Float8Values()[codes[column]];
  }
  return kNormalFloat4Levels[(codes[column / 2] >> (column % 2 * 4)) & 0xf];
}

// Of columns [begin, end) of a row; NaN where one is not finite.
template <typename T>
float LargestMagnitude(const T* row, int64_t begin, int64_t end) {
  float largest = 0;
  for (int64_t i = begin; i < end; ++i) {
    const float magnitude = std::abs(static_cast<float>(row[i]));
    if (!std::isfinite(magnitude)) {
      return std::numeric_limits<float>::quiet_NaN();
    }
    largest = std::max(largest, magnitude);
  }
  return largest;
}

template <typename T>
QuantizationError QuantizeRow(const QuantizedMatrix& layout,
                              int64_t all_columns, const T* row, uint8_t* codes,
                              float* scales) {
  const bool float8 = layout.format == WeightFormat::kFloat8;
  const int64_t block = float8 ? all_columns : kNormalFloat4Block;
  const int64_t first_block = layout.first_column / block;
  for (int64_t i = 0; i < layout.blocks(); ++i) {
    const int64_t begin = (first_block + i) * block;
    const float largest =
        LargestMagnitude(row, begin, std::min(all_columns, begin + block));
    scales[i] = float8 ? largest / kFloat8Most : largest;
  }
  QuantizationError error;
  std::fill_n(codes, layout.code_bytes(), uint8_t{0});
  for (int64_t i = 0; i < layout.columns; ++i) {
    const float weight = static_cast<float>(row[layout.first_column + i]);
    const float scale = scales[layout.block_of(i)];
    const float scaled = scale == 0 ? 0 : weight / scale;
    if (float8) {
      codes[i] = ToFloat8Code(scaled);
    } else {
      codes[i / 2] |=
          static_cast<uint8_t>(ToNormalFloat4(scaled) << (i % 2 * 4));
    }
    const double difference = weight - scale * DecodedBy(layout, codes, i);
    error.squared_differences += difference * difference;
    error.squares += static_cast<double>(weight) * weight;
  }
  return error;
}

// What each code of a scale stands for is multiplied and rounded once, not for
// each element that has it.
template <typename T>
void DequantizeRow(const QuantizedMatrix& layout, const uint8_t* codes,
                   const float* scales, T* values) {
  const bool float8 = layout.format == WeightFormat::kFloat8;
  if (float8 && layout.columns < 256) {
    for (int64_t i = 0; i < layout.columns; ++i) {
      values[i] = static_cast<T>(scales[0] * Float8Values()[codes[i]]);
    }
    return;
  }
  T of_codes[256];
  if (float8) {
    for (int code = 0; code < 256; ++code) {
      of_codes[code] = static_cast<T>(scales[0] * Float8Values()[code]);
    }
    for (int64_t i = 0; i < layout.columns; ++i) values[i] = of_codes[codes[i]];
    return;
  }
  int64_t end = 0;
  for (int64_t block = 0; block < layout.blocks(); ++block) {
    for (int code = 0; code < 16; ++code) {
      of_codes[code] =
          static_cast<T>(scales[block] * kNormalFloat4Levels[code]);
    }
    const int64_t begin = end;
    end = std::min(layout.columns,
                   begin + kNormalFloat4Block -
                       (layout.first_column + begin) % kNormalFloat4Block);
    int64_t i = begin;
    if (i % 2 == 1) {
      values[i] = of_codes[codes[i / 2] >> 4];
      ++i;
    }
    for (; i + 2 <= end; i += 2) {
      const uint8_t two = codes[i / 2];
      values[i] = of_codes[two & 0xf];
      values[i + 1] = of_codes[two >> 4];
    }
    if (i < end) values[i] = of_codes[codes[i / 2] & 0xf];
  }
}

}  // namespace

QuantizationError QuantizeKernel(const QuantizedMatrix& layout, DType dtype,
                                 int64_t all_columns, const void* matrix,
                                 void* codes, void* scales) {
  std::vector<QuantizationError> of_rows(layout.rows);
  DispatchFloating(dtype, [&](auto element) {
    using T = decltype(element);
    ParallelRows(layout.rows, layout.columns, [&](int64_t row) {
      of_rows[row] =
          QuantizeRow(layout, all_columns,
                      static_cast<const T*>(matrix) + row * all_columns,
                      static_cast<uint8_t*>(codes) + row * layout.code_bytes(),
                      static_cast<float*>(scales) + row * layout.blocks());
    });
  });
  QuantizationError sum;
  for (const QuantizationError& of_row : of_rows) {
    sum.squared_differences += of_row.squared_differences;
    sum.squares += of_row.squares;
  }
  return sum;
}

void DequantizeKernel(const QuantizedMatrix& layout, const void* codes,
                      const void* scales, DType dtype, void* values) {
  DequantizeColumnsKernel(layout, 0, layout.columns, codes, scales, dtype,
                          values);
}

void DequantizeColumnsKernel(const QuantizedMatrix& layout, int64_t first,
                             int64_t columns, const void* codes,
                             const void* scales, DType dtype, void* values) {
  CHECK_EQ(first % 2, 0);
  QuantizedMatrix part = layout;
  part.columns = columns;
  part.first_column += first;
  const bool float8 = layout.format == WeightFormat::kFloat8;
  const auto* const first_code =
      static_cast<const uint8_t*>(codes) + (float8 ? first : first / 2);
  const auto* const first_scale =
      static_cast<const float*>(scales) + layout.block_of(first);
  DispatchFloating(dtype, [&](auto element) {
    using T = decltype(element);
    ParallelRows(layout.rows, columns, [&](int64_t row) {
      DequantizeRow(part, first_code + row * layout.code_bytes(),
                    first_scale + row * layout.blocks(),
                    static_cast<T*>(values) + row * columns);
    });
  });
}

}  // namespace trireme
