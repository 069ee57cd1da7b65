#include "runtime/ops/cpu/pointwise_kernels.h"

#include <array>
#include <cmath>
#include <type_traits>

#include "runtime/ops/cpu/parallel_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/ops/cpu/pointwise_kernels.cc"
#include "hwy/foreach_target.h"
#include "runtime/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace trireme {
namespace HWY_NAMESPACE {

// y[i] = f(tag, operands at i), for operands of one element type.
template <typename T, typename F, typename... In>
void Map(int64_t n, F&& f, T* y, const In*... in) {
  ParallelBlocks(n, [&](int64_t begin, int64_t end) HWY_ATTR {
    MapOperands(end - begin, f, y + begin, in + begin...);
  });
}

// GELU(x) = x·σ(2u), u = √(2/π)(x + 0.044715x³): the tanh form with one
// exponential.
template <typename T, class D>
HWY_INLINE SigmoidPair<D> GeluSigmoid(D d, hn::Vec<D> x) {
  using C = hn::TFromD<D>;
  const auto inner =
      hn::MulAdd(hn::Mul(x, x), hn::Set(d, C(0.07135481627260025)),
                 hn::Set(d, C(1.5957691216057308)));
  return Sigmoid<T>(d, hn::Mul(x, inner));
}

template <typename T, class D>
HWY_INLINE hn::Vec<D> GeluDerivative(D d, hn::Vec<D> x) {
  using C = hn::TFromD<D>;
  const auto s = GeluSigmoid<T>(d, x);
  // d(2u)/dx = 2√(2/π)(1 + 3·0.044715x²)
  const auto slope =
      hn::MulAdd(hn::Mul(x, x), hn::Set(d, C(0.21406444881780073)),
                 hn::Set(d, C(1.5957691216057308)));
  return hn::MulAdd(hn::Mul(hn::Mul(x, s.value), s.rest), slope, s.value);
}

template <typename T, class D>
HWY_INLINE hn::Vec<D> SiluDerivative(D d, hn::Vec<D> x) {
  const auto s = Sigmoid<T>(d, x);
  return hn::MulAdd(hn::Mul(x, s.value), s.rest, s.value);
}

// Φ(x), and e^(−x²/2).
template <class D>
struct Normal {
  hn::Vec<D> value;
  hn::Vec<D> bell;
};

// f of each lane.
template <class D, class F>
HWY_INLINE hn::Vec<D> ByLane(D d, hn::Vec<D> x, const F& f) {
  HWY_ALIGN hn::TFromD<D> lanes[hn::MaxLanes(D())];
  hn::Store(x, d, lanes);
  for (size_t i = 0; i < hn::Lanes(d); ++i) lanes[i] = f(lanes[i]);
  return hn::Load(d, lanes);
}

// Φ without cancellation where x is far below 0. In fp32 by
// Φ(−z)·e^(z²/2) = t·p(t − c), t = 1/(1 + 0.27z), with p of least relative
// error (2.3e-8) over z <= 13.3, beyond which e^(−z²/2) underflows; in all 5e-7
// of Φ (for bf16 what FastExp leaves).
template <typename T, class D>
HWY_INLINE Normal<D> NormalDistribution(D d, hn::Vec<D> x) {
  using C = hn::TFromD<D>;
  if constexpr (std::is_same_v<C, double>) {
    return {ByLane(d, x,
                   [](C v) {
                     return C(0.5) * std::erfc(v * C(-0.70710678118654752));
                   }),
            ByLane(d, x, [](C v) { return std::exp(C(-0.5) * v * v); })};
  } else {
    constexpr std::array<C, 9> kPolynomial = {
        C(0.24171482),    C(0.409261078), C(0.486661047),
        C(0.372097343),   C(0.120451063), C(-0.0677916557),
        C(-0.0685973465), C(0.014721835), C(0.0288269538)};
    const auto one = hn::Set(d, C(1));
    const auto half = hn::Set(d, C(-0.5));
    const auto z = hn::Abs(x);
    const auto square = hn::Mul(x, x);
    auto bell = FastExp<T>(d, hn::Mul(half, square));
    // What rounding took from x².
    bell = hn::MulAdd(bell, hn::Mul(half, hn::MulSub(x, x, square)), bell);
    bell = hn::IfThenElseZero(hn::Lt(z, hn::Set(d, C(13.2))), bell);
    const auto t = hn::Div(one, hn::MulAdd(hn::Set(d, C(0.27)), z, one));
    const auto u = hn::Sub(t, hn::Set(d, C(0.609375)));
    auto p = hn::Set(d, kPolynomial.back());
#pragma GCC unroll 16
    for (size_t i = kPolynomial.size() - 1; i > 0; --i) {
      p = hn::MulAdd(p, u, hn::Set(d, kPolynomial[i - 1]));
    }
    const auto tail = hn::Mul(bell, hn::Mul(t, p));
    return {hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(one, tail)),
            bell};
  }
}

template <typename T, class D>
HWY_INLINE hn::Vec<D> ExactGeluDerivative(D d, hn::Vec<D> x) {
  const auto normal = NormalDistribution<T>(d, x);
  const auto density =
      hn::Mul(normal.bell, hn::Set(d, hn::TFromD<D>(0.39894228040143268)));
  return hn::MulAdd(x, density, normal.value);
}

void ActivationForward(DType dtype, Activation activation, int64_t n,
                       const void* x, void* y) {
  DispatchElement(dtype, [&](auto element) {
    using T = decltype(element);
    const T* in = static_cast<const T*>(x);
    T* out = static_cast<T*>(y);
    switch (activation) {
      case Activation::kGeluTanh:
        Map(
            n,
            [](auto d, auto v)
                HWY_ATTR { return hn::Mul(v, GeluSigmoid<T>(d, v).value); },
            out, in);
        break;
      case Activation::kSilu:
        Map(
            n,
            [](auto d, auto v)
                HWY_ATTR { return hn::Mul(v, Sigmoid<T>(d, v).value); },
            out, in);
        break;
      case Activation::kGelu:
        Map(
            n,
            [](auto d, auto v) HWY_ATTR {
              return hn::Mul(v, NormalDistribution<T>(d, v).value);
            },
            out, in);
        break;
      case Activation::kRelu:
        Map(
            n, [](auto d, auto v) HWY_ATTR { return hn::Max(v, hn::Zero(d)); },
            out, in);
        break;
      case Activation::kNone:
        Map(
            n, [](auto, auto v) HWY_ATTR { return v; }, out, in);
        break;
    }
  });
}

void ActivationBackward(DType dtype, Activation activation, int64_t n,
                        const void* x, const void* dy, void* dx) {
  DispatchElement(dtype, [&](auto element) {
    using T = decltype(element);
    const T* in = static_cast<const T*>(x);
    const T* g = static_cast<const T*>(dy);
    T* out = static_cast<T*>(dx);
    switch (activation) {
      case Activation::kGeluTanh:
        Map(
            n,
            [](auto d, auto v, auto dv)
                HWY_ATTR { return hn::Mul(dv, GeluDerivative<T>(d, v)); },
            out, in, g);
        break;
      case Activation::kSilu:
        Map(
            n,
            [](auto d, auto v, auto dv)
                HWY_ATTR { return hn::Mul(dv, SiluDerivative<T>(d, v)); },
            out, in, g);
        break;
      case Activation::kGelu:
        Map(
            n,
            [](auto d, auto v, auto dv)
                HWY_ATTR { return hn::Mul(dv, ExactGeluDerivative<T>(d, v)); },
            out, in, g);
        break;
      case Activation::kRelu:
        Map(
            n,
            [](auto d, auto v, auto dv) HWY_ATTR {
              return hn::IfThenElseZero(hn::Gt(v, hn::Zero(d)), dv);
            },
            out, in, g);
        break;
      case Activation::kNone:
        Map(
            n, [](auto, auto, auto dv) HWY_ATTR { return dv; }, out, in, g);
        break;
    }
  });
}

void SwiGluForward(DType dtype, int64_t rows, int64_t width, const void* x,
                   void* y) {
  DispatchElement(dtype, [&](auto element) {
    using T = decltype(element);
    ParallelRows(rows, width, [&](int64_t row) HWY_ATTR {
      const T* gate = static_cast<const T*>(x) + 2 * row * width;
      const T* up = gate + width;
      T* out = static_cast<T*>(y) + row * width;
      MapOperands(
          width,
          [](auto d, auto g, auto u) HWY_ATTR {
            return hn::Mul(hn::Mul(g, Sigmoid<T>(d, g).value), u);
          },
          out, gate, up);
    });
  });
}

void SwiGluBackward(DType dtype, int64_t rows, int64_t width, const void* x,
                    const void* dy, void* dx) {
  DispatchElement(dtype, [&](auto element) {
    using T = decltype(element);
    ParallelRows(rows, width, [&](int64_t row) HWY_ATTR {
      const T* gate = static_cast<const T*>(x) + 2 * row * width;
      const T* up = gate + width;
      const T* dout = static_cast<const T*>(dy) + row * width;
      T* dgate = static_cast<T*>(dx) + 2 * row * width;
      T* dup = dgate + width;
      ForLanes<ComputeType<T>>(width, [&](auto d, int64_t i) HWY_ATTR {
        const auto g = LoadAt(d, gate + i);
        const auto v = LoadAt(d, dout + i);
        const auto u = LoadAt(d, up + i);
        const auto s = Sigmoid<ComputeType<T>>(d, g);
        const auto silu = hn::Mul(g, s.value);
        const auto slope = hn::MulAdd(silu, s.rest, s.value);
        StoreAt(hn::Mul(hn::Mul(v, u), slope), d, dgate + i);
        StoreAt(hn::Mul(v, silu), d, dup + i);
      });
    });
  });
}

void AddTensors(DType dtype, int64_t n, const void* a, const void* b, void* y) {
  DispatchElement(dtype, [&](auto element) {
    using T = decltype(element);
    Map(
        n, [](auto, auto u, auto v) HWY_ATTR { return hn::Add(u, v); },
        static_cast<T*>(y), static_cast<const T*>(a), static_cast<const T*>(b));
  });
}

void MultiplyTensors(DType dtype, int64_t n, const void* a, const void* b,
                     void* y) {
  DispatchElement(dtype, [&](auto element) {
    using T = decltype(element);
    Map(
        n, [](auto, auto u, auto v) HWY_ATTR { return hn::Mul(u, v); },
        static_cast<T*>(y), static_cast<const T*>(a), static_cast<const T*>(b));
  });
}

void ScaleTensor(DType dtype, int64_t n, double factor, const void* x,
                 void* y) {
  DispatchElement(dtype, [&](auto element) {
    using T = decltype(element);
    Map(
        n,
        [factor](auto d, auto v) HWY_ATTR {
          return hn::Mul(v, hn::Set(d, static_cast<ComputeType<T>>(factor)));
        },
        static_cast<T*>(y), static_cast<const T*>(x));
  });
}

// Between dtypes of one compute type, lanes; with fp64 on one side, elements.
template <typename From, typename To, typename F>
void MapBetween(int64_t n, const From* x, To* y, F&& f) {
  if constexpr (std::is_same_v<ComputeType<From>, ComputeType<To>>) {
    ParallelBlocks(n, [&](int64_t begin, int64_t end) HWY_ATTR {
      ForLanes<ComputeType<To>>(end - begin, [&](auto d, int64_t i) HWY_ATTR {
        StoreAt(f(d, LoadAt(d, x + begin + i), y + begin + i), d,
                y + begin + i);
      });
    });
  } else {
    using C = ComputeType<To>;
    const hn::CappedTag<C, 1> one;
    for (int64_t i = 0; i < n; ++i) {
      const C value = static_cast<C>(static_cast<ComputeType<From>>(x[i]));
      StoreAt(f(one, hn::Set(one, value), y + i), one, y + i);
    }
  }
}

void AddInPlaceTensors(DType source_dtype, DType target_dtype, int64_t n,
                       double factor, const void* source, void* target) {
  DispatchFloating(source_dtype, [&](auto from) {
    using From = decltype(from);
    DispatchElement(target_dtype, [&](auto to) {
      using To = decltype(to);
      MapBetween(n, static_cast<const From*>(source), static_cast<To*>(target),
                 [factor](auto d, auto v, const To* old) HWY_ATTR {
                   return hn::MulAdd(
                       v, hn::Set(d, static_cast<ComputeType<To>>(factor)),
                       LoadAt(d, old));
                 });
    });
  });
}

// Keeps every bit that the target type can hold, the smallest numbers included.
void CastTensor(DType from_dtype, DType to_dtype, int64_t n, const void* x,
                void* y) {
  DispatchFloating(from_dtype, [&](auto from) {
    using From = decltype(from);
    DispatchFloating(to_dtype, [&](auto to) {
      using To = decltype(to);
      MapBetween(n, static_cast<const From*>(x), static_cast<To*>(y),
                 [](auto, auto v, const To*) HWY_ATTR { return v; });
    });
  });
}

void AddBroadcastTensors(DType dtype, int64_t rows, int64_t width,
                         const void* x, const void* b, void* y) {
  DispatchElement(dtype, [&](auto element) {
    using T = decltype(element);
    const T* addend = static_cast<const T*>(b);
    ParallelRows(rows, width, [&](int64_t row) HWY_ATTR {
      const T* in = static_cast<const T*>(x) + row * width;
      T* out = static_cast<T*>(y) + row * width;
      MapOperands(
          width, [](auto, auto u, auto v) HWY_ATTR { return hn::Add(u, v); },
          out, in, addend);
    });
  });
}

void GatedResidualForwardTensors(DType dtype, int64_t batch, int64_t tokens,
                                 int64_t width, const void* x, const void* gate,
                                 const void* y, void* out) {
  DispatchElement(dtype, [&](auto element) {
    using T = decltype(element);
    ParallelRows(batch * tokens, width, [&](int64_t row) HWY_ATTR {
      const T* a = static_cast<const T*>(x) + row * width;
      const T* b = static_cast<const T*>(y) + row * width;
      const T* g = static_cast<const T*>(gate) + row / tokens * width;
      T* o = static_cast<T*>(out) + row * width;
      MapOperands(
          width,
          [](auto, auto u, auto v, auto w)
              HWY_ATTR { return hn::MulAdd(v, w, u); },
          o, a, g, b);
    });
  });
}

// Work is cut by (sample, block of columns): each sums its tokens in order. The
// blocks are wide, so that memory is read in long runs.
void GatedResidualBackwardTensors(DType dtype, int64_t batch, int64_t tokens,
                                  int64_t width, const void* gate,
                                  const void* y, const void* dout, void* dgate,
                                  void* dy) {
  constexpr int64_t kColumns = 256;
  DispatchElement(dtype, [&](auto element) {
    using T = decltype(element);
    using C = ComputeType<T>;
    using D = hn::ScalableTag<C>;
    const D d;
    constexpr int64_t kStep = 2 * hn::MaxLanes(D());
    const int64_t blocks = (width + kColumns - 1) / kColumns;
    ParallelRows(batch * blocks, tokens * kColumns, [&](int64_t work) HWY_ATTR {
      const int64_t sample = work / blocks;
      const int64_t begin = work % blocks * kColumns;
      const int64_t columns = std::min(kColumns, width - begin);
      const T* g = static_cast<const T*>(gate) + sample * width + begin;
      // In the order of T's vectors.
      C sums[kColumns] = {};
      for (int64_t t = 0; t < tokens; ++t) {
        const int64_t at = (sample * tokens + t) * width + begin;
        const T* v = static_cast<const T*>(y) + at;
        const T* d_out = static_cast<const T*>(dout) + at;
        T* dv = static_cast<T*>(dy) + at;
        for (int64_t i = 0; i < columns; i += kStep) {
          const auto slope = LoadTwoUpTo(d, d_out + i, columns - i);
          const auto value = LoadTwoUpTo(d, v + i, columns - i);
          const auto factor = LoadTwoUpTo(d, g + i, columns - i);
          const auto sum = LoadTwo(d, sums + i);
          StoreTwo({hn::MulAdd(slope.first, value.first, sum.first),
                    hn::MulAdd(slope.second, value.second, sum.second)},
                   d, sums + i);
          StoreTwoUpTo({hn::Mul(slope.first, factor.first),
                        hn::Mul(slope.second, factor.second)},
                       d, dv + i, columns - i);
        }
      }
      T* dg = static_cast<T*>(dgate) + sample * width + begin;
      for (int64_t i = 0; i < columns; i += kStep) {
        StoreTwoUpTo(LoadTwo(d, sums + i), d, dg + i, columns - i);
      }
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace trireme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme {

HWY_EXPORT(ActivationForward);
HWY_EXPORT(ActivationBackward);
HWY_EXPORT(SwiGluForward);
HWY_EXPORT(SwiGluBackward);
HWY_EXPORT(AddTensors);
HWY_EXPORT(MultiplyTensors);
HWY_EXPORT(ScaleTensor);
HWY_EXPORT(AddInPlaceTensors);
HWY_EXPORT(CastTensor);
HWY_EXPORT(AddBroadcastTensors);
HWY_EXPORT(GatedResidualForwardTensors);
HWY_EXPORT(GatedResidualBackwardTensors);

void ActivationForwardKernel(DType dtype, Activation activation, int64_t n,
                             const void* x, void* y) {
  HWY_DYNAMIC_DISPATCH(ActivationForward)(dtype, activation, n, x, y);
}

void ActivationBackwardKernel(DType dtype, Activation activation, int64_t n,
                              const void* x, const void* dy, void* dx) {
  HWY_DYNAMIC_DISPATCH(ActivationBackward)(dtype, activation, n, x, dy, dx);
}

void SwiGluForwardKernel(DType dtype, int64_t rows, int64_t width,
                         const void* x, void* y) {
  HWY_DYNAMIC_DISPATCH(SwiGluForward)(dtype, rows, width, x, y);
}

void SwiGluBackwardKernel(DType dtype, int64_t rows, int64_t width,
                          const void* x, const void* dy, void* dx) {
  HWY_DYNAMIC_DISPATCH(SwiGluBackward)(dtype, rows, width, x, dy, dx);
}

void AddKernel(DType dtype, int64_t n, const void* a, const void* b, void* y) {
  HWY_DYNAMIC_DISPATCH(AddTensors)(dtype, n, a, b, y);
}

void MultiplyKernel(DType dtype, int64_t n, const void* a, const void* b,
                    void* y) {
  HWY_DYNAMIC_DISPATCH(MultiplyTensors)(dtype, n, a, b, y);
}

void ScaleKernel(DType dtype, int64_t n, double factor, const void* x,
                 void* y) {
  HWY_DYNAMIC_DISPATCH(ScaleTensor)(dtype, n, factor, x, y);
}

void AddInPlaceKernel(DType source_dtype, DType target_dtype, int64_t n,
                      double factor, const void* source, void* target) {
  HWY_DYNAMIC_DISPATCH(AddInPlaceTensors)
  (source_dtype, target_dtype, n, factor, source, target);
}

void CastKernel(DType from, DType to, int64_t n, const void* x, void* y) {
  HWY_DYNAMIC_DISPATCH(CastTensor)(from, to, n, x, y);
}

void AddBroadcastKernel(DType dtype, int64_t rows, int64_t width, const void* x,
                        const void* b, void* y) {
  HWY_DYNAMIC_DISPATCH(AddBroadcastTensors)(dtype, rows, width, x, b, y);
}

void GatedResidualForwardKernel(DType dtype, int64_t batch, int64_t tokens,
                                int64_t width, const void* x, const void* gate,
                                const void* y, void* out) {
  HWY_DYNAMIC_DISPATCH(GatedResidualForwardTensors)
  (dtype, batch, tokens, width, x, gate, y, out);
}

void GatedResidualBackwardKernel(DType dtype, int64_t batch, int64_t tokens,
                                 int64_t width, const void* gate, const void* y,
                                 const void* dout, void* dgate, void* dy) {
  HWY_DYNAMIC_DISPATCH(GatedResidualBackwardTensors)
  (dtype, batch, tokens, width, gate, y, dout, dgate, dy);
}

}  // namespace trireme
#endif  // HWY_ONCE
