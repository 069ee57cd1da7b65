#include "runtime/ops/cpu/reduction_kernels.h"

#include <algorithm>
#include <cmath>
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

// Σ over blocks, in order, of block(begin, count).
template <typename F>
double SumBlocks(int64_t n, F&& block) {
  const int64_t blocks = (n + kReductionBlock - 1) / kReductionBlock;
  if (n < kParallelElements) {
    double total = 0;
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t begin = b * kReductionBlock;
      total += block(begin, std::min(kReductionBlock, n - begin));
    }
    return total;
  }
  std::vector<double> partial(blocks);
#pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t begin = b * kReductionBlock;
    partial[b] = block(begin, std::min(kReductionBlock, n - begin));
  }
  double total = 0;
  for (const double value : partial) total += value;
  return total;
}

double Reduce(DType dtype, ScalarReduction reduction, int64_t n,
              const void* data) {
  double result = 0;
  DispatchFloating(dtype, [&](auto element) {
    using T = decltype(element);
    using C = ComputeType<T>;
    const T* x = static_cast<const T*>(data);
    switch (reduction) {
      case ScalarReduction::kSum:
        result = SumBlocks(n, [&](int64_t begin, int64_t count) HWY_ATTR {
          return static_cast<double>(SumLanes<C>(
              count, [&](auto d, int64_t i)
                         HWY_ATTR { return LoadAt(d, x + begin + i); }));
        });
        break;
      case ScalarReduction::kSumOfSquares:
        result = SumBlocks(n, [&](int64_t begin, int64_t count) HWY_ATTR {
          return static_cast<double>(
              SumLanes<C>(count, [&](auto d, int64_t i) HWY_ATTR {
                const auto v = LoadAt(d, x + begin + i);
                return hn::Mul(v, v);
              }));
        });
        break;
      case ScalarReduction::kMaxAbs:
        for (int64_t i = 0; i < n; ++i) {
          const double v = std::abs(static_cast<double>(x[i]));
          // A NaN must be taken, and then kept: nothing compares above it.
          if (v > result || std::isnan(v)) result = v;
        }
        break;
      case ScalarReduction::kNonFinite:
        for (int64_t i = 0; i < n; ++i) {
          result += std::isfinite(static_cast<double>(x[i])) ? 0 : 1;
        }
        break;
    }
  });
  return result;
}

void SoftmaxForward(DType dtype, int64_t rows, int64_t width, const void* x,
                    void* y) {
  DispatchFloating(dtype, [&](auto element) {
    using T = decltype(element);
    using C = ComputeType<T>;
    ParallelRows(rows, width, [&](int64_t row) HWY_ATTR {
      const T* in = static_cast<const T*>(x) + row * width;
      T* out = static_cast<T*>(y) + row * width;
      C highest = static_cast<C>(in[0]);
      for (int64_t i = 1; i < width; ++i) {
        highest = std::max(highest, static_cast<C>(in[i]));
      }
      const auto exponential = [&](auto d, int64_t i) HWY_ATTR {
        return FastExp(d, hn::Sub(LoadAt(d, in + i), hn::Set(d, highest)));
      };
      const C scale = C(1) / SumLanes<C>(width, exponential);
      ForLanes<C>(width, [&](auto d, int64_t i) HWY_ATTR {
        StoreAt(hn::Mul(exponential(d, i), hn::Set(d, scale)), d, out + i);
      });
    });
  });
}

void SoftmaxBackward(DType dtype, int64_t rows, int64_t width, const void* y,
                     const void* dy, void* dx) {
  DispatchFloating(dtype, [&](auto element) {
    using T = decltype(element);
    using C = ComputeType<T>;
    ParallelRows(rows, width, [&](int64_t row) HWY_ATTR {
      const T* p = static_cast<const T*>(y) + row * width;
      const T* g = static_cast<const T*>(dy) + row * width;
      T* out = static_cast<T*>(dx) + row * width;
      const C dot = SumLanes<C>(width, [&](auto d, int64_t i) HWY_ATTR {
        return hn::Mul(LoadAt(d, p + i), LoadAt(d, g + i));
      });
      ForLanes<C>(width, [&](auto d, int64_t i) HWY_ATTR {
        StoreAt(hn::Mul(LoadAt(d, p + i),
                        hn::Sub(LoadAt(d, g + i), hn::Set(d, dot))),
                d, out + i);
      });
    });
  });
}

void SumTokens(DType dtype, int64_t batch, int64_t tokens, int64_t width,
               const void* x, void* out) {
  constexpr int64_t kColumns = 64;
  DispatchFloating(dtype, [&](auto element) {
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
  double result = 0;
  DispatchFloating(dtype, [&](auto element) {
    using T = decltype(element);
    using C = ComputeType<T>;
    const T* u = static_cast<const T*>(a);
    const T* v = static_cast<const T*>(b);
    result = SumBlocks(n, [&](int64_t begin, int64_t count) HWY_ATTR {
      return static_cast<double>(
          SumLanes<C>(count, [&](auto d, int64_t i) HWY_ATTR {
            const auto difference =
                hn::Sub(LoadAt(d, u + begin + i), LoadAt(d, v + begin + i));
            return hn::Mul(difference, difference);
          }));
    });
  });
  return result;
}

void SquaredErrorBackward(DType dtype, int64_t n, double factor, const void* a,
                          const void* b, void* out) {
  DispatchFloating(dtype, [&](auto element) {
    using T = decltype(element);
    using C = ComputeType<T>;
    const T* u = static_cast<const T*>(a);
    const T* v = static_cast<const T*>(b);
    T* to = static_cast<T*>(out);
    ParallelBlocks(n, [&](int64_t begin, int64_t end) HWY_ATTR {
      ForLanes<C>(end - begin, [&](auto d, int64_t i) HWY_ATTR {
        StoreAt(
            hn::Mul(hn::Sub(LoadAt(d, u + begin + i), LoadAt(d, v + begin + i)),
                    hn::Set(d, static_cast<C>(2 * factor))),
            d, to + begin + i);
      });
    });
  });
}

template <typename C, typename Value>
void AdamWOf(const AdamWArguments& a, Value* value) {
  const C* grad = static_cast<const C*>(a.grad);
  C* master = static_cast<C*>(a.master);
  C* m = static_cast<C*>(a.m);
  C* v = static_cast<C*>(a.v);
  ParallelBlocks(a.n, [&](int64_t begin, int64_t end) HWY_ATTR {
    ForLanes<C>(end - begin, [&](auto d, int64_t offset) HWY_ATTR {
      const int64_t i = begin + offset;
      const auto set = [&](double x)
                           HWY_ATTR { return hn::Set(d, static_cast<C>(x)); };
      const auto g = hn::Mul(LoadAt(d, grad + i), set(a.gradient_scale));
      const auto m_new = hn::MulAdd(set(a.beta1), LoadAt(d, m + i),
                                    hn::Mul(set(1 - a.beta1), g));
      const auto v_new = hn::MulAdd(set(a.beta2), LoadAt(d, v + i),
                                    hn::Mul(hn::Mul(set(1 - a.beta2), g), g));
      const auto denominator =
          hn::Add(hn::Sqrt(hn::Mul(v_new, set(a.correction2))), set(a.eps));
      const auto old = LoadAt(d, master + i);
      const auto direction =
          hn::MulAdd(set(a.weight_decay), old,
                     hn::Div(hn::Mul(m_new, set(a.correction1)), denominator));
      const auto updated = hn::NegMulAdd(set(a.learning_rate), direction, old);
      StoreAt(m_new, d, m + i);
      StoreAt(v_new, d, v + i);
      StoreAt(updated, d, master + i);
      StoreAt(updated, d, value + i);
    });
  });
}

void AdamW(const AdamWArguments& a) {
  if (a.dtype == DType::kFloat64) {
    AdamWOf<double>(a, static_cast<double*>(a.value));
  } else if (a.value_dtype == DType::kBFloat16) {
    AdamWOf<float>(a, static_cast<BFloat16*>(a.value));
  } else {
    AdamWOf<float>(a, static_cast<float*>(a.value));
  }
}

void Ema(DType dtype, int64_t n, double decay, const void* x, void* average) {
  DispatchFloating(dtype, [&](auto element) {
    using T = decltype(element);
    using C = ComputeType<T>;
    const T* in = static_cast<const T*>(x);
    T* out = static_cast<T*>(average);
    ParallelBlocks(n, [&](int64_t begin, int64_t end) HWY_ATTR {
      ForLanes<C>(end - begin, [&](auto d, int64_t i) HWY_ATTR {
        const auto old = LoadAt(d, out + begin + i);
        StoreAt(hn::MulAdd(hn::Sub(LoadAt(d, in + begin + i), old),
                           hn::Set(d, static_cast<C>(1 - decay)), old),
                d, out + begin + i);
      });
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
HWY_EXPORT(SoftmaxBackward);
HWY_EXPORT(SumTokens);
HWY_EXPORT(SquaredError);
HWY_EXPORT(SquaredErrorBackward);
HWY_EXPORT(AdamW);
HWY_EXPORT(Ema);

double ReduceKernel(DType dtype, ScalarReduction reduction, int64_t n,
                    const void* x) {
  return HWY_DYNAMIC_DISPATCH(Reduce)(dtype, reduction, n, x);
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

void AdamWKernel(const AdamWArguments& arguments) {
  HWY_DYNAMIC_DISPATCH(AdamW)(arguments);
}

void EmaKernel(DType dtype, int64_t n, double decay, const void* x,
               void* average) {
  HWY_DYNAMIC_DISPATCH(Ema)(dtype, n, decay, x, average);
}

}  // namespace trireme
#endif  // HWY_ONCE
