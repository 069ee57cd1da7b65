// Packing of a b of codes (runtime/ops/kernels/quantization.h) for amx_gemm.cc:
// 32 codes of a row become 32 values in a register. Included once, inside its
// target region. The bits are those of Dequantize to bf16, but that values
// below the least normal one are zero.

#ifndef TRIREME_RUNTIME_OPS_CPU_AMX_CODES_INL_H_
#define TRIREME_RUNTIME_OPS_CPU_AMX_CODES_INL_H_

#include <algorithm>
#include <cstdint>

#include "runtime/ops/cpu/amx_tiles-inl.h"
#include "runtime/ops/kernels/quantization.h"

namespace trireme::amx {

// E4M3, exact. With its bits in their places of fp16 a code stands for 1/256 of
// itself, below the least normal one as well.
inline __m512 FromFloat8(__m128i codes) {
  const __m256i x = _mm256_cvtepu8_epi16(codes);
  const __m256i magnitude = _mm256_and_si256(x, _mm256_set1_epi16(0x7f));
  const __m256i sign =
      _mm256_slli_epi16(_mm256_and_si256(x, _mm256_set1_epi16(0x80)), 8);
  __m256i half = _mm256_or_si256(sign, _mm256_slli_epi16(magnitude, 7));
  constexpr int16_t kNan = 0x7e00;
  half = _mm256_mask_mov_epi16(
      half, _mm256_cmpeq_epi16_mask(magnitude, _mm256_set1_epi16(0x7f)),
      _mm256_set1_epi16(kNan));
  return _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256));
}

inline __m512 FromNormalFloat4(__m128i codes) {
  return _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(codes),
                               _mm512_loadu_ps(kNormalFloat4Levels));
}

struct RowsOfCodes {
  RowsOfCodes(const QuantizedMatrix& layout, const uint8_t* codes,
              const float* scales)
      : layout_(layout),
        code_bytes_(layout.code_bytes()),
        blocks_(layout.blocks()),
        codes_(codes),
        scales_(scales) {}

  // Values of `count` <= 32 columns of a row from an even one, then zeros.
  __m512i Load(int64_t row, int64_t column, int64_t count) const {
    const __mmask32 mask = dot::FirstHalves(count);
    const uint8_t* const codes = codes_ + row * code_bytes_;
    const float* const scales = scales_ + row * blocks_;
    __m512 low, high;
    if (layout_.format == WeightFormat::kFloat8) {
      const __m256i x = _mm256_maskz_loadu_epi8(mask, codes + column);
      const __m512 scale = _mm512_set1_ps(scales[0]);
      low = _mm512_mul_ps(scale, FromFloat8(_mm256_castsi256_si128(x)));
      high = _mm512_mul_ps(scale, FromFloat8(_mm256_extracti128_si256(x, 1)));
    } else {
      const __m256i two = _mm256_cvtepu8_epi16(_mm_maskz_loadu_epi8(
          dot::FirstLanes((count + 1) / 2), codes + column / 2));
      const __m256i x =
          _mm256_and_si256(_mm256_or_si256(two, _mm256_slli_epi16(two, 4)),
                           _mm256_set1_epi8(0xf));
      // Columns from here that have the first one's scale.
      const int64_t alike =
          kNormalFloat4Block -
          (layout_.first_column + column) % kNormalFloat4Block;
      const float* const scale = scales + layout_.block_of(column);
      const __m512 first = _mm512_set1_ps(scale[0]);
      const __m512 second = _mm512_set1_ps(scale[alike < count ? 1 : 0]);
      low = _mm512_mul_ps(
          _mm512_mask_blend_ps(dot::FirstLanes(alike), second, first),
          FromNormalFloat4(_mm256_castsi256_si128(x)));
      high = _mm512_mul_ps(
          _mm512_mask_blend_ps(
              dot::FirstLanes(std::max<int64_t>(0, alike - kTileRows)), second,
              first),
          FromNormalFloat4(_mm256_extracti128_si256(x, 1)));
    }
    return _mm512_maskz_mov_epi16(mask,
                                  (__m512i)_mm512_cvtne2ps_pbh(high, low));
  }

 private:
  const QuantizedMatrix& layout_;
  const int64_t code_bytes_, blocks_;
  const uint8_t* const codes_;
  const float* const scales_;
};

// Rows [row, row + columns) of codes are columns <= 32 of b, from term `begin`
// of each, into one panel.
inline void PackRowsAsColumnsOfB(const RowsOfCodes& rows, int64_t row,
                                 int64_t columns, int64_t begin, int64_t terms,
                                 char* to) {
  alignas(64) BFloat16 values[kTileRows * kStep];
  for (int64_t first = 0; first < kPanel; first += kTileRows) {
    for (int64_t term = 0; term < terms; term += kStep) {
      const int64_t count = std::min(kStep, terms - term);
      for (int64_t i = 0; i < kTileRows; ++i) {
        _mm512_store_si512(values + i * kStep,
                           first + i < columns
                               ? rows.Load(row + first + i, begin + term, count)
                               : _mm512_setzero_si512());
      }
      TransposePairs(values, kStep,
                     to + term / kStep * kStepBytes + first * kRowBytes);
    }
  }
}

}  // namespace trireme::amx

#endif  // TRIREME_RUNTIME_OPS_CPU_AMX_CODES_INL_H_
