#include "runtime/ops/cpu/reduction_kernels.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <type_traits>
#include <vector>

#include "runtime/ops/cpu/parallel_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/ops/cpu/reduction_kernels.cc"
#include "hwy/foreach_target.h"
#include "runtime/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace trireme {
namespace HWY_NAMESPACE {

constexpr int64_t kReductionBlock = 4096;

// The value of block(begin, count) for each block, combined in their order.
template <typename F, typename Combine>
double CombineBlocks(int64_t n, F&& block, Combine&& combine) {
  const int64_t blocks = (n + kReductionBlock - 1) / kReductionBlock;
  std::vector<double> values(blocks);
#pragma omp parallel for schedule(static) if (n >= kParallelElements)
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t begin = b * kReductionBlock;
    values[b] = block(begin, std::min(kReductionBlock, n - begin));
  }
  double result = 0;
  for (const double value : values) result = combine(result, value);
  return result;
}

// Σ over i < n of f(tag, operands at i).
template <typename T, typename F, typename... In>
double SumBlocks(int64_t n, F&& f, const In*... in) {
  return CombineBlocks(
      n,
      [&](int64_t begin, int64_t count) HWY_ATTR {
        return static_cast<double>(SumOperands<T>(count, f, in + begin...));
      },
      std::plus<double>());
}

// The higher of two in each lane, or NaN if one is.
template <class V>
HWY_INLINE V Higher(V a, V b) {
  return hn::IfThenElse(hn::Or(hn::Gt(b, a), hn::IsNaN(b)), b, a);
}

// The highest of f(tag, x at i), or NaN if any is NaN: nothing compares above
// it once it is taken.
template <typename T, typename F>
HWY_INLINE ComputeType<T> Highest(int64_t n, const T* x, F&& f) {
  using C = ComputeType<T>;
  const hn::ScalableTag<C> full;
  const hn::CappedTag<C, 1> one;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(full));
  auto highest = f(one, LoadAt(one, x));
  int64_t i = 0;
  if (n >= lanes) {
    auto each = f(full, LoadAt(full, x));
    for (i = lanes; i + lanes <= n; i += lanes) {
      each = Higher(each, f(full, LoadAt(full, x + i)));
    }
    C values[hn::MaxLanes(decltype(full)())];
    hn::StoreU(each, full, values);
    for (int64_t k = 0; k < lanes; ++k) {
      highest = Higher(highest, hn::LoadU(one, values + k));
    }
  }
  for (; i < n; ++i) highest = Higher(highest, f(one, LoadAt(one, x + i)));
  return hn::GetLane(highest);
}

template <typename T>
double ReduceOf(ScalarReduction reduction, int64_t n, const T* x) {
  switch (reduction) {
    case ScalarReduction::kSum:
      return SumBlocks<T>(
          n, [](auto, auto v) HWY_ATTR { return v; }, x);
    case ScalarReduction::kSumOfSquares:
      return SumBlocks<T>(
          n, [](auto, auto v) HWY_ATTR { return hn::Mul(v, v); }, x);
    case ScalarReduction::kMaxAbs:
      return CombineBlocks(
          n,
          [x](int64_t begin, int64_t count) HWY_ATTR {
            return static_cast<double>(
                Highest(count, x + begin,
                        [](auto, auto v) HWY_ATTR { return hn::Abs(v); }));
          },
          [](double a, double b) { return b > a || std::isnan(b) ? b : a; });
    case ScalarReduction::kNonFinite:
      return SumBlocks<T>(
          n,
          [](auto d, auto v) HWY_ATTR {
            const auto one = hn::Set(d, ComputeType<T>(1));
            return hn::IfThenZeroElse(hn::IsFinite(v), one);
          },
          x);
  }
  return 0;
}

double Reduce(DType dtype, ScalarReduction reduction, int64_t n,
              const void* data) {
  return DispatchFloating(dtype, [&](auto element) {
    return ReduceOf(reduction, n, static_cast<const decltype(element)*>(data));
  });
}

void BlockSumsOfSquares(DType dtype, int64_t n, int64_t block, const void* x,
                        double* sums) {
  DispatchFloating(dtype, [&](auto element) {
    using T = decltype(element);
    const int64_t blocks = (n + block - 1) / block;
    const auto square = [](auto, auto v) HWY_ATTR { return hn::Mul(v, v); };
    ParallelRows(blocks, block, [&](int64_t row) HWY_ATTR {
      const int64_t begin = row * block;
      sums[row] =
          static_cast<double>(SumOperands<T>(std::min(block, n - begin), square,
                                             static_cast<const T*>(x) + begin));
    });
  });
}

// Elements of the longest row that has no two vectors of its own, so that its
// sum runs element by element.
template <typename C>
constexpr int64_t kShortRow = 2 * hn::MaxLanes(hn::ScalableTag<C>()) - 1;

// Softmax of as many short rows as there are lanes, at most: a lane does what
// its row would by itself, in the same order.
template <typename C>
HWY_INLINE void SoftmaxOfShortRows(int64_t rows, int64_t width, const C* x,
                                   C* y) {
  const hn::ScalableTag<C> d;
  constexpr int64_t kLanes = hn::MaxLanes(decltype(d)());
  C columns[kShortRow<C> * kLanes];  // [width, lanes]
  for (int64_t i = 0; i < width; ++i) {
    for (int64_t row = 0; row < kLanes; ++row) {
      columns[i * kLanes + row] = row < rows ? x[row * width + i] : C(0);
    }
  }
  auto highest = hn::LoadU(d, columns);
  for (int64_t i = 1; i < width; ++i) {
    highest = Higher(highest, hn::LoadU(d, columns + i * kLanes));
  }
  auto sum = hn::Zero(d);
  for (int64_t i = 0; i < width; ++i) {
    C* const column = columns + i * kLanes;
    const auto e = FastExp<C>(d, hn::Sub(hn::LoadU(d, column), highest));
    sum = hn::Add(sum, e);
    hn::StoreU(e, d, column);
  }
  const auto scale = hn::Div(hn::Set(d, C(1)), sum);
  for (int64_t i = 0; i < width; ++i) {
    C* const column = columns + i * kLanes;
    hn::StoreU(hn::Mul(hn::LoadU(d, column), scale), d, column);
  }
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < width; ++i) {
      y[row * width + i] = columns[i * kLanes + row];
    }
  }
}

void SoftmaxForward(DType dtype, int64_t rows, int64_t width, const void* x,
                    void* y) {
  DispatchElement(dtype, [&](auto element) {
    using T = decltype(element);
    using C = ComputeType<T>;
    if constexpr (std::is_same_v<T, C>) {
      if (width <= kShortRow<C>) {
        constexpr int64_t kLanes = hn::MaxLanes(hn::ScalableTag<C>());
        const int64_t blocks = (rows + kLanes - 1) / kLanes;
        ParallelRows(blocks, kLanes * width, [&](int64_t block) HWY_ATTR {
          const int64_t row = block * kLanes;
          SoftmaxOfShortRows(std::min(kLanes, rows - row), width,
                             static_cast<const C*>(x) + row * width,
                             static_cast<C*>(y) + row * width);
        });
        return;
      }
    }
    ParallelRows(rows, width, [&](int64_t row) HWY_ATTR {
      const T* in = static_cast<const T*>(x) + row * width;
      T* out = static_cast<T*>(y) + row * width;
      const C highest =
          Highest(width, in, [](auto, auto v) HWY_ATTR { return v; });
      const auto exponential = [highest](auto d, auto v) HWY_ATTR {
        return FastExp<T>(d, hn::Sub(v, hn::Set(d, highest)));
      };
      const C scale = C(1) / SumOperands<T>(width, exponential, in);
      MapOperands(
          width,
          [exponential, scale](auto d, auto v) HWY_ATTR {
            return hn::Mul(exponential(d, v), hn::Set(d, scale));
          },
          out, in);
    });
  });
}

void SoftmaxBackward(DType dtype, int64_t rows, int64_t width, const void* y,
                     const void* dy, void* dx) {
  DispatchElement(dtype, [&](auto element) {
    using T = decltype(element);
    using C = ComputeType<T>;
    ParallelRows(rows, width, [&](int64_t row) HWY_ATTR {
      const T* p = static_cast<const T*>(y) + row * width;
      const T* g = static_cast<const T*>(dy) + row * width;
      T* out = static_cast<T*>(dx) + row * width;
      const C dot = SumOperands<T>(
          width, [](auto, auto u, auto v) HWY_ATTR { return hn::Mul(u, v); }, p,
          g);
      MapOperands(
          width,
          [dot](auto d, auto u, auto v)
              HWY_ATTR { return hn::Mul(u, hn::Sub(v, hn::Set(d, dot))); },
          out, p, g);
    });
  });
}

void SumTokens(DType dtype, int64_t batch, int64_t tokens, int64_t width,
               const void* x, void* out) {
  constexpr int64_t kColumns = 64;
  DispatchElement(dtype, [&](auto element) {
    using T = decltype(element);
    using C = ComputeType<T>;
    const int64_t blocks = (width + kColumns - 1) / kColumns;
    ParallelRows(batch * blocks, tokens * kColumns, [&](int64_t work) HWY_ATTR {
      const int64_t sample = work / blocks;
      const int64_t begin = work % blocks * kColumns;
      const int64_t columns = std::min(kColumns, width - begin);
      C sums[kColumns] = {};
      for (int64_t t = 0; t < tokens; ++t) {
        const T* in =
            static_cast<const T*>(x) + (sample * tokens + t) * width + begin;
        ForLanes<C>(columns, [&](auto d, int64_t i) HWY_ATTR {
          hn::StoreU(hn::Add(hn::LoadU(d, sums + i), LoadAt(d, in + i)), d,
                     sums + i);
        });
      }
      T* to = static_cast<T*>(out) + sample * width + begin;
      ForLanes<C>(columns, [&](auto d, int64_t i) HWY_ATTR {
        StoreAt(hn::LoadU(d, sums + i), d, to + i);
      });
    });
  });
}

double SquaredError(DType dtype, int64_t n, const void* a, const void* b) {
  return DispatchFloating(dtype, [&](auto element) {
    using T = decltype(element);
    return SumBlocks<T>(
        n,
        [](auto, auto u, auto v) HWY_ATTR {
          const auto difference = hn::Sub(u, v);
          return hn::Mul(difference, difference);
        },
        static_cast<const T*>(a), static_cast<const T*>(b));
  });
}

void SquaredErrorBackward(DType dtype, int64_t n, double factor, const void* a,
                          const void* b, void* out) {
  DispatchElement(dtype, [&](auto element) {
    using T = decltype(element);
    const T* u = static_cast<const T*>(a);
    const T* v = static_cast<const T*>(b);
    T* to = static_cast<T*>(out);
    const auto twice = static_cast<ComputeType<T>>(2 * factor);
    ParallelBlocks(n, [&](int64_t begin, int64_t end) HWY_ATTR {
      MapOperands(
          end - begin,
          [twice](auto d, auto p, auto q)
              HWY_ATTR { return hn::Mul(hn::Sub(p, q), hn::Set(d, twice)); },
          to + begin, u + begin, v + begin);
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace trireme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme {

HWY_EXPORT(Reduce);
HWY_EXPORT(SoftmaxForward);
HWY_EXPORT(BlockSumsOfSquares);
HWY_EXPORT(SoftmaxBackward);
HWY_EXPORT(SumTokens);
HWY_EXPORT(SquaredError);
HWY_EXPORT(SquaredErrorBackward);

double ReduceKernel(DType dtype, ScalarReduction reduction, int64_t n,
                    const void* x) {
  return HWY_DYNAMIC_DISPATCH(Reduce)(dtype, reduction, n, x);
}

void BlockSumsOfSquaresKernel(DType dtype, int64_t n, int64_t block,
                              const void* x, double* sums) {
  HWY_DYNAMIC_DISPATCH(BlockSumsOfSquares)(dtype, n, block, x, sums);
}

void SoftmaxForwardKernel(DType dtype, int64_t rows, int64_t width,
                          const void* x, void* y) {
  HWY_DYNAMIC_DISPATCH(SoftmaxForward)(dtype, rows, width, x, y);
}

void SoftmaxBackwardKernel(DType dtype, int64_t rows, int64_t width,
                           const void* y, const void* dy, void* dx) {
  HWY_DYNAMIC_DISPATCH(SoftmaxBackward)(dtype, rows, width, y, dy, dx);
}

void SumTokensKernel(DType dtype, int64_t batch, int64_t tokens, int64_t width,
                     const void* x, void* out) {
  HWY_DYNAMIC_DISPATCH(SumTokens)(dtype, batch, tokens, width, x, out);
}

double SquaredErrorKernel(DType dtype, int64_t n, const void* a,
                          const void* b) {
  return HWY_DYNAMIC_DISPATCH(SquaredError)(dtype, n, a, b);
}

void SquaredErrorBackwardKernel(DType dtype, int64_t n, double factor,
                                const void* a, const void* b, void* out) {
  HWY_DYNAMIC_DISPATCH(SquaredErrorBackward)(dtype, n, factor, a, b, out);
}

}  // namespace trireme
#endif  // HWY_ONCE
