// The innermost loops of bfloat16_gemm.cc: packing, and one tile of a product.
// Included once, inside its target region.
//
// The instruction multiplies pairs: element (row, 2p) by (2p, column), plus
// (row, 2p + 1) by (2p + 1, column). So operands are read by pairs along k,
// each 32 bits:
//   a  as it lies, where its rows are contiguous; else packed by groups of
//      kTileRows rows, [pairs][kTileRows]
//   b  packed by panels of kVectors vectors of columns, [pairs][columns]

#ifndef TRIREME_RUNTIME_OPS_CPU_BFLOAT16_DOT_INL_H_
#define TRIREME_RUNTIME_OPS_CPU_BFLOAT16_DOT_INL_H_

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "runtime/core/dtype.h"

namespace trireme::dot {

inline constexpr int kLanes = 16;    // of a vector of fp32, or of pairs
inline constexpr int kTileRows = 8;  // 8 · 3 sums, 3 vectors of b and a pair
inline constexpr int kVectors = 3;   // of a fill the 32 registers
inline constexpr int kPanel = kVectors * kLanes;

using Pair = uint32_t;

inline __mmask16 FirstLanes(int64_t count) {
  return count >= kLanes ? __mmask16{0xffff}
                         : static_cast<__mmask16>((1u << count) - 1);
}

inline __mmask32 FirstHalves(int64_t count) {
  return count >= 2 * kLanes
             ? __mmask32{0xffffffff}
             : static_cast<__mmask32>((uint64_t{1} << count) - 1);
}

// Elements of two rows by pairs: columns 0 to 15 and 16 to 31 of the rows' 32.
struct Interleaved {
  __m512i low, high;
  Interleaved(__m512i first, __m512i second) {
    const __m512i ascending = _mm512_set_epi16(
        47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38,
        6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    low = _mm512_permutex2var_epi16(first, ascending, second);
    high = _mm512_permutex2var_epi16(
        first, _mm512_add_epi16(ascending, _mm512_set1_epi16(kLanes)), second);
  }
};

// Terms [2 · first, 2 · first + terms) of a b with contiguous rows into the
// panels at `to`, each of `pairs` pairs; b points at the first of these terms.
// Columns beyond are zero, and so is the second of a last pair that is half.
// Row by row, since rows are what memory gives fastest.
inline void PackRows(const BFloat16* b, int64_t row_stride, int64_t first,
                     int64_t terms, int64_t columns, int64_t pairs, Pair* to) {
  for (int64_t term = 0; term < terms; term += 2) {
    const BFloat16* row = b + term * row_stride;
    const bool whole = term + 1 < terms;
    for (int64_t column = 0; column < columns; column += kPanel) {
      const int64_t count = std::min<int64_t>(kPanel, columns - column);
      const int64_t vectors = (count + kLanes - 1) / kLanes;
      Pair* at = to + column * pairs + (first + term / 2) * vectors * kLanes;
      for (int64_t v = 0; v < vectors; v += 2) {
        const __mmask32 mask = FirstHalves(count - v * kLanes);
        const BFloat16* from = row + column + v * kLanes;
        const Interleaved x(
            _mm512_maskz_loadu_epi16(mask, from),
            _mm512_maskz_loadu_epi16(whole ? mask : 0, from + row_stride));
        _mm512_storeu_si512(at + v * kLanes, x.low);
        if (v + 1 < vectors) {
          _mm512_storeu_si512(at + (v + 1) * kLanes, x.high);
        }
      }
    }
  }
}

// rows[i] becomes what column i of the 16 × 16 matrix of pairs was.
inline void Transpose(__m512i (&rows)[kLanes]) {
  __m512i t[kLanes];
#pragma GCC unroll 8
  for (int i = 0; i < kLanes; i += 2) {
    t[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < kLanes; i += 4) {
    rows[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    rows[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    rows[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    rows[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    rows[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    rows[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    rows[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    rows[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

// The same of a b with contiguous columns.
inline void PackColumns(const BFloat16* b, int64_t column_stride, int64_t pairs,
                        int64_t columns, Pair* to) {
  const int vectors = static_cast<int>((columns + kLanes - 1) / kLanes);
  for (int v = 0; v < vectors; ++v) {
    const int64_t count = std::min<int64_t>(kLanes, columns - v * kLanes);
    const BFloat16* from = b + v * kLanes * column_stride;
    for (int64_t p = 0; p < pairs; p += kLanes) {
      const __mmask16 mask = FirstLanes(pairs - p);
      __m512i rows[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        rows[i] = i < count ? _mm512_maskz_loadu_epi32(
                                  mask, from + i * column_stride + 2 * p)
                            : _mm512_setzero_si512();
      }
      Transpose(rows);
      const int64_t filled = std::min<int64_t>(kLanes, pairs - p);
      for (int64_t i = 0; i < filled; ++i) {
        _mm512_storeu_si512(to + ((p + i) * vectors + v) * kLanes, rows[i]);
      }
    }
  }
}

// a[rows, terms] with contiguous columns into groups of kTileRows rows,
// to[groups][pairs][kTileRows]; rows beyond are zero, and so is the second of a
// last pair that is half.
inline void PackTransposed(const BFloat16* a, int64_t column_stride,
                           int64_t rows, int64_t terms, Pair* to) {
  const int64_t group = (terms + 1) / 2 * kTileRows;
  const auto store = [](Pair* at, __m256i x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), x);
  };
  for (int64_t row = 0; row < rows; row += 4 * kTileRows) {
    const __mmask32 mask = FirstHalves(rows - row);
    Pair* groups = to + row / kTileRows * group;
    for (int64_t term = 0; term < terms; term += 2) {
      const BFloat16* column = a + row + term * column_stride;
      const Interleaved x(_mm512_maskz_loadu_epi16(mask, column),
                          _mm512_maskz_loadu_epi16(term + 1 < terms ? mask : 0,
                                                   column + column_stride));
      Pair* at = groups + term / 2 * kTileRows;
      store(at, _mm512_castsi512_si256(x.low));
      if (rows - row > kTileRows) {
        store(at + group, _mm512_extracti64x4_epi64(x.low, 1));
      }
      if (rows - row > 2 * kTileRows) {
        store(at + 2 * group, _mm512_castsi512_si256(x.high));
      }
      if (rows - row > 3 * kTileRows) {
        store(at + 3 * group, _mm512_extracti64x4_epi64(x.high, 1));
      }
    }
  }
}

// Where the pairs of a's tiles lie, in bytes.
struct TiledA {
  const char* data;
  int64_t tile_step;
  int64_t row_step;
  int64_t pair_step;

  // With contiguous rows of an even number of terms.
  static TiledA Rows(const BFloat16* a, int64_t row_stride) {
    const auto step = static_cast<int64_t>(row_stride * sizeof(BFloat16));
    return {reinterpret_cast<const char*>(a), kTileRows * step, step,
            sizeof(Pair)};
  }
  static TiledA Packed(const Pair* a, int64_t pairs) {
    constexpr int64_t kStep = kTileRows * sizeof(Pair);
    return {reinterpret_cast<const char*>(a), pairs * kStep, sizeof(Pair),
            kStep};
  }
};

struct TileOut {
  char* data;
  int64_t row_stride;    // elements
  bool rounds;           // to bf16
  bool adds;             // to what is there (fp32)
  const BFloat16* bias;  // of the columns, or null
};

// What a tile brings into the cache for the rows to come: two lines at each
// step, a step for each of its pairs at most.
struct TilePrefetch {
  const char* data = nullptr;
  int64_t step = 0;
  int64_t count = 0;
};

template <int kRows, int kColumns>
void Tile(const TiledA& a, const Pair* b, int64_t pairs, const TileOut& out,
          __mmask16 last, const TilePrefetch& prefetch) {
  __m512 sums[kRows][kColumns];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int c = 0; c < kColumns; ++c) sums[r][c] = _mm512_setzero_ps();
  }
  const int64_t step = out.rounds ? sizeof(BFloat16) : sizeof(float);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const char* row = out.data + r * out.row_stride * step;
#pragma GCC unroll 3
    for (int c = 0; c < kColumns; ++c) {
      _mm_prefetch(row + c * kLanes * step, _MM_HINT_T0);
    }
  }
  const char* at = a.data;
  const auto dot = [&](int64_t p) {
    __m512bh columns[kColumns];
#pragma GCC unroll 3
    for (int c = 0; c < kColumns; ++c) {
      columns[c] =
          (__m512bh)_mm512_loadu_si512(b + (p * kColumns + c) * kLanes);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      Pair pair;
      std::memcpy(&pair, at + r * a.row_step, sizeof(pair));
      const __m512bh row = (__m512bh)_mm512_set1_epi32(static_cast<int>(pair));
#pragma GCC unroll 3
      for (int c = 0; c < kColumns; ++c) {
        sums[r][c] = _mm512_dpbf16_ps(sums[r][c], columns[c], row);
      }
    }
    at += a.pair_step;
  };
  const int64_t fetched = std::min(prefetch.count, pairs);
  const char* coming = prefetch.data;
  int64_t p = 0;
  for (; p < fetched; ++p) {
    _mm_prefetch(coming, _MM_HINT_T1);
    _mm_prefetch(coming + 64, _MM_HINT_T1);
    coming += prefetch.step;
    dot(p);
  }
  for (; p < pairs; ++p) dot(p);

#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int c = 0; c < kColumns; ++c) {
      const __mmask16 mask = c + 1 < kColumns ? __mmask16{0xffff} : last;
      __m512 sum = sums[r][c];
      if (out.bias != nullptr) {
        const __m512i bias =
            _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(
                                  mask, out.bias + c * kLanes)),
                              16);
        sum = _mm512_add_ps(sum, _mm512_castsi512_ps(bias));
      }
      if (out.rounds) {
        auto* to = reinterpret_cast<BFloat16*>(out.data) + r * out.row_stride +
                   c * kLanes;
        _mm256_mask_storeu_epi16(to, mask, (__m256i)_mm512_cvtneps_pbh(sum));
      } else {
        float* to = reinterpret_cast<float*>(out.data) + r * out.row_stride +
                    c * kLanes;
        if (out.adds) {
          sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, to));
        }
        _mm512_mask_storeu_ps(to, mask, sum);
      }
    }
  }
}

using TileFunction = void (*)(const TiledA&, const Pair*, int64_t,
                              const TileOut&, __mmask16, const TilePrefetch&);

// By rows and vectors of columns, each less one.
inline constexpr TileFunction kTiles[kTileRows][kVectors] = {
    {Tile<1, 1>, Tile<1, 2>, Tile<1, 3>}, {Tile<2, 1>, Tile<2, 2>, Tile<2, 3>},
    {Tile<3, 1>, Tile<3, 2>, Tile<3, 3>}, {Tile<4, 1>, Tile<4, 2>, Tile<4, 3>},
    {Tile<5, 1>, Tile<5, 2>, Tile<5, 3>}, {Tile<6, 1>, Tile<6, 2>, Tile<6, 3>},
    {Tile<7, 1>, Tile<7, 2>, Tile<7, 3>}, {Tile<8, 1>, Tile<8, 2>, Tile<8, 3>}};

// out[rows, columns] = a·b, b packed by panels. prefetch() says what each tile
// brings.
template <typename Prefetch>
void Multiply(const TiledA& a, int64_t rows, const Pair* b, int64_t columns,
              int64_t pairs, const TileOut& out, Prefetch&& prefetch) {
  const int64_t step = out.rounds ? sizeof(BFloat16) : sizeof(float);
  for (int64_t column = 0; column < columns; column += kPanel) {
    const int64_t count = std::min<int64_t>(kPanel, columns - column);
    const int64_t vectors = (count + kLanes - 1) / kLanes;
    TiledA tile = a;
    TileOut to = out;
    to.data += column * step;
    if (to.bias != nullptr) to.bias += column;
    for (int64_t row = 0; row < rows; row += kTileRows) {
      kTiles[std::min<int64_t>(kTileRows, rows - row) - 1][vectors - 1](
          tile, b + column * pairs, pairs, to,
          FirstLanes(count - (vectors - 1) * kLanes), prefetch());
      tile.data += tile.tile_step;
      to.data += kTileRows * out.row_stride * step;
    }
  }
}

}  // namespace trireme::dot

#endif  // TRIREME_RUNTIME_OPS_CPU_BFLOAT16_DOT_INL_H_
