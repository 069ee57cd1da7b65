#include "runtime/ops/cpu/quantization_kernels.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "runtime/ops/cpu/parallel_rows.h"

namespace trireme {
namespace {

constexpr float kFloat8Most = 448;
constexpr int kFloat8Bias = 7;
constexpr int kFloat8MantissaBits = 3;
constexpr uint8_t kFloat8Nan = 0x7f;

float FromFloat8(uint8_t code) {
  const int exponent = (code >> kFloat8MantissaBits) & 0xf;
  const int mantissa = code & 0x7;
  if ((code & kFloat8Nan) == kFloat8Nan) {
    return std::numeric_limits<float>::quiet_NaN();
  }
  // The lowest exponent has no hidden bit.
  const int significand = exponent == 0 ? mantissa : 8 + mantissa;
  const float magnitude =
      std::ldexp(static_cast<float>(significand),
                 std::max(exponent, 1) - kFloat8Bias - kFloat8MantissaBits);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

// To nearest even. The magnitude is at most the most, but for rounding.
uint8_t ToFloat8(float x) {
  if (std::isnan(x)) return kFloat8Nan;
  const float magnitude = std::min(std::abs(x), kFloat8Most);
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  const int field = std::max(exponent - 1 + kFloat8Bias, 1);
  // In steps of the last bit: 8 to 16, or less where there is no hidden bit. A
  // carry goes on into the exponent.
  const auto steps = static_cast<int>(std::nearbyint(
      std::ldexp(magnitude, kFloat8MantissaBits + kFloat8Bias - field)));
  const int code = (field << kFloat8MantissaBits) + steps - 8;
  return static_cast<uint8_t>(code | (std::signbit(x) ? 0x80 : 0));
}

std::array<float, 256> MakeFloat8Values() {
  std::array<float, 256> values;
  for (int code = 0; code < 256; ++code) {
    values[code] = FromFloat8(static_cast<uint8_t>(code));
  }
  return values;
}

const std::array<float, 256>& Float8Values() {
  static const std::array<float, 256> values = MakeFloat8Values();
  return values;
}

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
      codes[i] = ToFloat8(scaled);
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
  DispatchFloating(dtype, [&](auto element) {
    using T = decltype(element);
    ParallelRows(layout.rows, layout.columns, [&](int64_t row) {
      const uint8_t* const of_row =
          static_cast<const uint8_t*>(codes) + row * layout.code_bytes();
      const float* const scale =
          static_cast<const float*>(scales) + row * layout.blocks();
      T* const out = static_cast<T*>(values) + row * layout.columns;
      for (int64_t i = 0; i < layout.columns; ++i) {
        out[i] = static_cast<T>(scale[layout.block_of(i)] *
                                DecodedBy(layout, of_row, i));
      }
    });
  });
}

}  // namespace trireme
