// The innermost loops of amx_gemm.cc: packing, and one block of a product by
// tiles (Intel's AMX). Included once, inside its target region.
//
// A tile is 16 rows of 64 bytes. The instruction adds to a tile of fp32 the
// product of a tile of a, [16 rows][32 terms], and one of b, [16 pairs of
// terms][16 columns], each pair in one 32-bit word (Intel, Software Developer's
// Manual, TDPBF16PS). A block of a product has two tiles by two, so that each
// tile that is loaded is used twice. Operands are packed by panels of 32 rows
// of a, or columns of b: for each step of 32 terms one tile behind the other,
// what lies beyond the operand is zero. Of an a with contiguous rows a whole
// panel need not be packed.

#ifndef TRIREME_RUNTIME_OPS_CPU_AMX_TILES_INL_H_
#define TRIREME_RUNTIME_OPS_CPU_AMX_TILES_INL_H_

#include <algorithm>
#include <cstdint>

#include "runtime/core/dtype.h"
#include "runtime/ops/cpu/bfloat16_dot-inl.h"

namespace trireme::amx {

inline constexpr int64_t kTileRows = 16;  // and columns of fp32
inline constexpr int64_t kPanel = 2 * kTileRows;
inline constexpr int64_t kStep = 32;  // terms
inline constexpr int64_t kRowBytes = 64;
inline constexpr int64_t kTileBytes = kTileRows * kRowBytes;
inline constexpr int64_t kStepBytes = 2 * kTileBytes;  // of a panel

inline int64_t StepsOf(int64_t terms) { return (terms + kStep - 1) / kStep; }

// The calling thread's tiles are 16 rows of 64 bytes in its scope. Others
// (oneDNN) shape them anew for each product of theirs as well.
class ScopedTiles {
 public:
  ScopedTiles() {
    struct alignas(64) {
      uint8_t palette = 1;
      uint8_t start_row = 0;
      uint8_t reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } shapes;
    std::fill_n(shapes.row_bytes, 8, kRowBytes);
    std::fill_n(shapes.rows, 8, kTileRows);
    _tile_loadconfig(&shapes);
  }
  ~ScopedTiles() { _tile_release(); }
  ScopedTiles(const ScopedTiles&) = delete;
  ScopedTiles& operator=(const ScopedTiles&) = delete;
};

// rows <= 32 of `terms` contiguous terms into a panel of a.
inline void PackRowsOfA(const BFloat16* a, int64_t row_stride, int64_t rows,
                        int64_t terms, char* to) {
  for (int64_t term = 0; term < terms; term += kStep) {
    const __mmask32 mask = dot::FirstHalves(terms - term);
    for (int64_t row = 0; row < kPanel; ++row) {
      _mm512_store_si512(to,
                         _mm512_maskz_loadu_epi16(
                             row < rows ? mask : 0,
                             a + (row < rows ? row : 0) * row_stride + term));
      to += kRowBytes;
    }
  }
}

// 16 bytes from each of four addresses that are `stride` elements apart.
inline __m512i LoadQuarters(const BFloat16* from, int64_t stride) {
  const auto quarter = [&](int64_t i) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i * stride));
  };
  __m512i x = _mm512_castsi128_si512(quarter(0));
  x = _mm512_mask_broadcast_i32x4(x, 0x00f0, quarter(1));
  x = _mm512_mask_broadcast_i32x4(x, 0x0f00, quarter(2));
  return _mm512_mask_broadcast_i32x4(x, 0xf000, quarter(3));
}

// Eight rows of a tile of a: to[row][term] = from[term · stride + row].
inline void TransposeTerms(const BFloat16* from, int64_t stride, char* to) {
  __m512i x[8];
  __m512i y[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i)
    x[i] = LoadQuarters(from + i * stride, 8 * stride);
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    y[i] = _mm512_unpacklo_epi16(x[i], x[i + 1]);
    y[i + 1] = _mm512_unpackhi_epi16(x[i], x[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    x[i] = _mm512_unpacklo_epi32(y[i], y[i + 2]);
    x[i + 1] = _mm512_unpackhi_epi32(y[i], y[i + 2]);
    x[i + 2] = _mm512_unpacklo_epi32(y[i + 1], y[i + 3]);
    x[i + 3] = _mm512_unpackhi_epi32(y[i + 1], y[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    _mm512_store_si512(to + 2 * i * kRowBytes,
                       _mm512_unpacklo_epi64(x[i], x[i + 4]));
    _mm512_store_si512(to + (2 * i + 1) * kRowBytes,
                       _mm512_unpackhi_epi64(x[i], x[i + 4]));
  }
}

// rows <= 32 of an a whose columns are contiguous.
inline void PackColumnsOfA(const BFloat16* a, int64_t column_stride,
                           int64_t rows, int64_t terms, char* to) {
  alignas(64) BFloat16 edge[kStep * kPanel];
  for (int64_t term = 0; term < terms; term += kStep) {
    const int64_t count = std::min(kStep, terms - term);
    const BFloat16* from = a + term * column_stride;
    int64_t stride = column_stride;
    if (rows < kPanel || count < kStep) {
      const __mmask32 mask = dot::FirstHalves(rows);
      for (int64_t i = 0; i < kStep; ++i) {
        _mm512_store_si512(edge + i * kPanel,
                           _mm512_maskz_loadu_epi16(
                               i < count ? mask : 0,
                               from + (i < count ? i : 0) * column_stride));
      }
      from = edge;
      stride = kPanel;
    }
    for (int64_t row = 0; row < kPanel; row += 8) {
      TransposeTerms(from + row, stride, to + row * kRowBytes);
    }
    to += kStepBytes;
  }
}

// The rows of a b that are contiguous.
struct RowsOfB {
  const BFloat16* data;
  int64_t stride;

  // `count` <= 32 elements of a row, then zeros.
  __m512i Load(int64_t row, int64_t column, int64_t count) const {
    return _mm512_maskz_loadu_epi16(dot::FirstHalves(count),
                                    data + row * stride + column);
  }
};

// All columns of rows, terms of one step from row `first`, column `begin`:
// panels are `panel_bytes` apart.
template <typename Rows>
void PackRowsOfB(const Rows& rows, int64_t first, int64_t terms, int64_t begin,
                 int64_t columns, int64_t panel_bytes, char* to) {
  for (int64_t column = 0; column < columns; column += kPanel) {
    const int64_t count = std::min(kPanel, columns - column);
    const auto load = [&](int64_t term) {
      return term < terms ? rows.Load(first + term, begin + column, count)
                          : _mm512_setzero_si512();
    };
    for (int64_t pair = 0; pair < kTileRows; ++pair) {
      const dot::Interleaved x(load(2 * pair), load(2 * pair + 1));
      _mm512_store_si512(to + pair * kRowBytes, x.low);
      _mm512_store_si512(to + kTileBytes + pair * kRowBytes, x.high);
    }
    to += panel_bytes;
  }
}

// A tile of b from 16 columns of 32 contiguous terms.
inline void TransposePairs(const BFloat16* from, int64_t stride, char* to) {
  for (int64_t term = 0; term < kStep; term += 8) {
    __m512i x[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      x[i] = LoadQuarters(from + i * stride + term, 4 * stride);
    }
    const __m512i y[4] = {
        _mm512_unpacklo_epi32(x[0], x[1]), _mm512_unpackhi_epi32(x[0], x[1]),
        _mm512_unpacklo_epi32(x[2], x[3]), _mm512_unpackhi_epi32(x[2], x[3])};
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      _mm512_store_si512(to, _mm512_unpacklo_epi64(y[i], y[i + 2]));
      _mm512_store_si512(to + kRowBytes, _mm512_unpackhi_epi64(y[i], y[i + 2]));
      to += 2 * kRowBytes;
    }
  }
}

// columns <= 32 of a b whose columns are contiguous, into one panel.
inline void PackColumnsOfB(const BFloat16* b, int64_t column_stride,
                           int64_t columns, int64_t terms, char* to) {
  alignas(64) BFloat16 edge[kTileRows * kStep];
  for (int64_t first = 0; first < kPanel; first += kTileRows) {
    const int64_t wide = std::min(kTileRows, columns - first);
    for (int64_t term = 0; term < terms; term += kStep) {
      const BFloat16* from = b + first * column_stride + term;
      int64_t stride = column_stride;
      if (wide < kTileRows || terms - term < kStep) {
        const __mmask32 mask = dot::FirstHalves(terms - term);
        for (int64_t i = 0; i < kTileRows; ++i) {
          _mm512_store_si512(
              edge + i * kStep,
              _mm512_maskz_loadu_epi16(
                  i < wide ? mask : 0,
                  b + (i < wide ? (first + i) * column_stride + term : 0)));
        }
        from = edge;
        stride = kStep;
      }
      TransposePairs(from, stride,
                     to + term / kStep * kStepBytes + first * kRowBytes);
    }
  }
}

// Where a panel of a lies: packed, or whole rows of contiguous terms as they
// are, which are tiles already.
struct PanelOfA {
  const char* data;
  int64_t row_bytes = kRowBytes;
  int64_t step_bytes = kStepBytes;
  int64_t below = kTileBytes;  // from a tile to that of the next 16 rows

  static PanelOfA Rows(const BFloat16* a, int64_t row_stride) {
    const auto row_bytes = static_cast<int64_t>(row_stride * sizeof(BFloat16));
    return {reinterpret_cast<const char*>(a), row_bytes, kRowBytes,
            kTileRows * row_bytes};
  }
};

// Brings runs of bytes into the cache, some lines at each step of what is
// computed meanwhile.
class Prefetch {
 public:
  Prefetch() = default;
  // `count` runs that begin `stride` bytes apart, in so many steps.
  Prefetch(const void* data, int64_t stride, int64_t count, int64_t bytes,
           int64_t steps)
      : run_(static_cast<const char*>(data)),
        stride_(stride),
        bytes_(bytes),
        left_(count),
        lines_((count * ((bytes + kRowBytes - 1) / kRowBytes) + steps - 1) /
               steps) {}

  void Step() {
    for (int64_t i = 0; i < lines_ && left_ > 0; ++i) {
      _mm_prefetch(run_ + at_, _MM_HINT_T1);
      at_ += kRowBytes;
      if (at_ < bytes_) continue;
      at_ = 0;
      run_ += stride_;
      --left_;
    }
  }

 private:
  const char* run_ = nullptr;
  int64_t stride_ = 0;
  int64_t bytes_ = 0;  // of a run
  int64_t left_ = 0;   // runs
  int64_t lines_ = 0;  // of a step
  int64_t at_ = 0;
};

// What a block brings into the cache for the next: rows of two lines that will
// be written, and what is read later.
struct Coming {
  const char* data = nullptr;  // null: nothing
  int64_t row_step = 0;
  Prefetch* later = nullptr;
};

// c[kRows tiles, kColumns tiles] = a·b, or, where it goes on, += a·b, of a
// panel of a and one of b. The tiles of b pass by the first-level cache, so
// that it keeps a panel of a for many of b.
template <int kRows, int kColumns>
void MultiplyTiles(const PanelOfA& panel, const char* b, int64_t steps,
                   bool goes_on, float* c, int64_t stride,
                   const Coming& coming) {
  const auto row_bytes = static_cast<int64_t>(stride * sizeof(float));
  float* const below = c + kTileRows * stride;
  // What was packed is in memory before tiles are read.
  asm volatile("" ::: "memory");
  if (goes_on) {
    _tile_loadd(0, c, row_bytes);
    if (kColumns > 1) _tile_loadd(1, c + kTileRows, row_bytes);
    if (kRows > 1) _tile_loadd(2, below, row_bytes);
    if (kRows * kColumns > 2) _tile_loadd(3, below + kTileRows, row_bytes);
  } else {
    _tile_zero(0);
    if (kColumns > 1) _tile_zero(1);
    if (kRows > 1) _tile_zero(2);
    if (kRows * kColumns > 2) _tile_zero(3);
  }
  const char* a = panel.data;
  const char* next = coming.data;
  const int64_t next_rows = (kPanel + steps - 1) / steps;  // of a step
  int64_t left = next == nullptr ? 0 : kPanel;
  for (int64_t step = 0; step < steps; ++step) {
    for (int64_t i = std::min(left, next_rows); i > 0; --i, --left) {
      __builtin_prefetch(next, 1);
      __builtin_prefetch(next + kRowBytes, 1);
      next += coming.row_step;
    }
    if (coming.later != nullptr) coming.later->Step();
    _tile_loadd(4, a, panel.row_bytes);
    _tile_stream_loadd(6, b, kRowBytes);
    _tile_dpbf16ps(0, 4, 6);
    if (kColumns > 1) {
      _tile_stream_loadd(7, b + kTileBytes, kRowBytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if (kRows > 1) {
      _tile_loadd(5, a + panel.below, panel.row_bytes);
      _tile_dpbf16ps(2, 5, 6);
      if (kColumns > 1) _tile_dpbf16ps(3, 5, 7);
    }
    a += panel.step_bytes;
    b += kStepBytes;
  }
  _tile_stored(0, c, row_bytes);
  if (kColumns > 1) _tile_stored(1, c + kTileRows, row_bytes);
  if (kRows > 1) _tile_stored(2, below, row_bytes);
  if (kRows * kColumns > 2) _tile_stored(3, below + kTileRows, row_bytes);
}

// From and to the first `rows` and `columns` of a block.
inline void CopyBlock(const float* from, int64_t from_stride, int64_t rows,
                      int64_t columns, float* to, int64_t to_stride) {
  const __mmask16 first = dot::FirstLanes(columns);
  const __mmask16 second =
      dot::FirstLanes(std::max<int64_t>(0, columns - kTileRows));
  for (int64_t row = 0; row < rows; ++row) {
    const float* x = from + row * from_stride;
    float* y = to + row * to_stride;
    _mm512_mask_storeu_ps(y, first, _mm512_maskz_loadu_ps(first, x));
    if (second == 0) continue;
    _mm512_mask_storeu_ps(y + kTileRows, second,
                          _mm512_maskz_loadu_ps(second, x + kTileRows));
  }
}

// The first `rows` and `columns`, at most 32, of c. The sum over terms has one
// order: that of the steps, whatever the block.
inline void MultiplyBlock(const PanelOfA& a, const char* b, int64_t steps,
                          bool goes_on, int64_t rows, int64_t columns, float* c,
                          int64_t stride, const Coming& coming) {
  alignas(64) float edge[kPanel * kPanel];
  const bool whole = rows % kTileRows == 0 && columns % kTileRows == 0;
  float* const to = whole ? c : edge;
  const int64_t to_stride = whole ? stride : kPanel;
  if (!whole && goes_on) CopyBlock(c, stride, rows, columns, to, kPanel);
  if (rows > kTileRows) {
    (columns > kTileRows
         ? MultiplyTiles<2, 2>
         : MultiplyTiles<2, 1>)(a, b, steps, goes_on, to, to_stride, coming);
  } else {
    (columns > kTileRows
         ? MultiplyTiles<1, 2>
         : MultiplyTiles<1, 1>)(a, b, steps, goes_on, to, to_stride, coming);
  }
  if (!whole) CopyBlock(to, kPanel, rows, columns, c, stride);
}

// out = c + bias, rounded if out is.
inline void FinishBlock(const float* c, int64_t stride, int64_t rows,
                        int64_t columns, const dot::TileOut& out) {
  for (int64_t column = 0; column < columns; column += kTileRows) {
    const __mmask16 mask = dot::FirstLanes(columns - column);
    __m512 bias = _mm512_setzero_ps();
    if (out.bias != nullptr) {
      bias = _mm512_castsi512_ps(
          _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(
                                mask, out.bias + column)),
                            16));
    }
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t at = row * out.row_stride + column;
      const __m512 sum = _mm512_add_ps(
          _mm512_maskz_loadu_ps(mask, c + row * stride + column), bias);
      if (out.rounds) {
        _mm256_mask_storeu_epi16(reinterpret_cast<BFloat16*>(out.data) + at,
                                 mask, (__m256i)_mm512_cvtneps_pbh(sum));
      } else {
        _mm512_mask_storeu_ps(reinterpret_cast<float*>(out.data) + at, mask,
                              sum);
      }
    }
  }
}

// A block by its columns, without gaps.
inline void TransposeBlock(const float* c, int64_t stride, float* to) {
  for (int64_t row = 0; row < kPanel; row += kTileRows) {
    for (int64_t column = 0; column < kPanel; column += kTileRows) {
      __m512i x[dot::kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < dot::kLanes; ++i) {
        x[i] = _mm512_loadu_si512(c + (row + i) * stride + column);
      }
      dot::Transpose(x);
#pragma GCC unroll 16
      for (int i = 0; i < dot::kLanes; ++i) {
        _mm512_storeu_si512(to + (column + i) * kPanel + row, x[i]);
      }
    }
  }
}

}  // namespace trireme::amx

#endif  // TRIREME_RUNTIME_OPS_CPU_AMX_TILES_INL_H_
