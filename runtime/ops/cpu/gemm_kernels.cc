#include "runtime/ops/cpu/gemm_kernels.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/ops/cpu/gemm_kernels.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "hwy/highway.h"
#include "runtime/ops/cpu/gemm_vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace trireme {
namespace HWY_NAMESPACE {

template <typename From, typename To>
void ConvertRow(const From* from, int64_t count, To* to) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(Floats()));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    StoreFloats(LoadFloats(from + i), to + i);
  }
  for (; i < count; ++i) to[i] = To(LoadFloat(from + i));
}

void WidenBFloat16(const BFloat16* from, int64_t count, float* to) {
  ConvertRow(from, count, to);
}

void WidenFloat16(const Float16* from, int64_t count, float* to) {
  ConvertRow(from, count, to);
}

void RoundToBFloat16(const float* from, int64_t count, BFloat16* to) {
  ConvertRow(from, count, to);
}

void RoundToFloat16(const float* from, int64_t count, Float16* to) {
  ConvertRow(from, count, to);
}

// Rows summed in registers before they are added to the total: keeps the
// rounding error of long sums small.
inline constexpr int64_t kRowBlock = 64;

// Sums of 8 vectors of columns at a time: enough to hide the adds' latency.
template <typename T>
void SumColumns(const T* x, int64_t rows, int64_t stride, int64_t columns,
                float* out) {
  constexpr int kVectors = 8;
  const auto lanes = static_cast<int64_t>(hn::Lanes(Floats()));
  for (int64_t begin = 0; begin < rows; begin += kRowBlock) {
    const int64_t end = std::min(rows, begin + kRowBlock);
    int64_t column = 0;
    for (; column + kVectors * lanes <= columns; column += kVectors * lanes) {
      FloatVector s0, s1, s2, s3, s4, s5, s6, s7;
      s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = hn::Zero(Floats());
      for (int64_t row = begin; row < end; ++row) {
        const T* from = x + row * stride + column;
        s0 = hn::Add(s0, LoadFloats(from));
        s1 = hn::Add(s1, LoadFloats(from + lanes));
        s2 = hn::Add(s2, LoadFloats(from + 2 * lanes));
        s3 = hn::Add(s3, LoadFloats(from + 3 * lanes));
        s4 = hn::Add(s4, LoadFloats(from + 4 * lanes));
        s5 = hn::Add(s5, LoadFloats(from + 5 * lanes));
        s6 = hn::Add(s6, LoadFloats(from + 6 * lanes));
        s7 = hn::Add(s7, LoadFloats(from + 7 * lanes));
      }
      const FloatVector sums[kVectors] = {s0, s1, s2, s3, s4, s5, s6, s7};
      for (int v = 0; v < kVectors; ++v) {
        float* to = out + column + v * lanes;
        StoreFloats(hn::Add(LoadFloats(to), sums[v]), to);
      }
    }
    for (; column + lanes <= columns; column += lanes) {
      FloatVector sum = hn::Zero(Floats());
      for (int64_t row = begin; row < end; ++row) {
        sum = hn::Add(sum, LoadFloats(x + row * stride + column));
      }
      float* to = out + column;
      StoreFloats(hn::Add(LoadFloats(to), sum), to);
    }
    for (; column < columns; ++column) {
      float sum = 0;
      for (int64_t row = begin; row < end; ++row) {
        sum += LoadFloat(x + row * stride + column);
      }
      out[column] += sum;
    }
  }
}

void SumColumnsFloat(const float* x, int64_t rows, int64_t stride,
                     int64_t columns, float* out) {
  SumColumns(x, rows, stride, columns, out);
}

void SumColumnsFloat16(const Float16* x, int64_t rows, int64_t stride,
                       int64_t columns, float* out) {
  SumColumns(x, rows, stride, columns, out);
}

void SumColumnsBFloat16(const BFloat16* x, int64_t rows, int64_t stride,
                        int64_t columns, float* out) {
  SumColumns(x, rows, stride, columns, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace trireme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme {

HWY_EXPORT(WidenBFloat16);
HWY_EXPORT(WidenFloat16);
HWY_EXPORT(RoundToBFloat16);
HWY_EXPORT(RoundToFloat16);
HWY_EXPORT(SumColumnsFloat16);
HWY_EXPORT(SumColumnsFloat);
HWY_EXPORT(SumColumnsBFloat16);

namespace {

// Columns are split among threads, so that every sum has one order.
template <typename F>
void ForColumnBlocks(int64_t rows, int64_t columns, const F& f) {
  constexpr int64_t kColumnBlock = 128;
  const int64_t blocks = (columns + kColumnBlock - 1) / kColumnBlock;
#pragma omp parallel for schedule(static) if (rows * columns > 65536)
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t begin = block * kColumnBlock;
    f(begin, std::min(columns, begin + kColumnBlock));
  }
}

}  // namespace

void WidenRow(const BFloat16* from, int64_t count, float* to) {
  HWY_DYNAMIC_DISPATCH(WidenBFloat16)(from, count, to);
}

void WidenRow(const Float16* from, int64_t count, float* to) {
  HWY_DYNAMIC_DISPATCH(WidenFloat16)(from, count, to);
}

void RoundRow(const float* from, int64_t count, BFloat16* to) {
  HWY_DYNAMIC_DISPATCH(RoundToBFloat16)(from, count, to);
}

void RoundRow(const float* from, int64_t count, Float16* to) {
  HWY_DYNAMIC_DISPATCH(RoundToFloat16)(from, count, to);
}

void AddColumnSums(const BFloat16* x, int64_t rows, int64_t columns,
                   float* out) {
  ForColumnBlocks(rows, columns, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SumColumnsBFloat16)
    (x + begin, rows, columns, end - begin, out + begin);
  });
}

void AddColumnSums(const Float16* x, int64_t rows, int64_t columns,
                   float* out) {
  ForColumnBlocks(rows, columns, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SumColumnsFloat16)
    (x + begin, rows, columns, end - begin, out + begin);
  });
}

void AddColumnSums(const float* x, int64_t rows, int64_t columns, float* out) {
  ForColumnBlocks(rows, columns, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SumColumnsFloat)
    (x + begin, rows, columns, end - begin, out + begin);
  });
}

void AddColumnSums(const double* x, int64_t rows, int64_t columns,
                   double* out) {
  ForColumnBlocks(rows, columns, [&](int64_t begin, int64_t end) {
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = begin; i < end; ++i) out[i] += x[row * columns + i];
    }
  });
}

}  // namespace trireme
#endif  // HWY_ONCE
