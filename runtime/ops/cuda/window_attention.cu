#include <cmath>

#include "runtime/ops/cuda/blocks.cuh"
#include "runtime/ops/cuda/elements.cuh"
#include "runtime/ops/cuda/families.h"

namespace trireme {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpThreads;
constexpr double kMaxLogScale = 4.605170185988092;  // log 100
// Of the norms that vectors are divided by.
constexpr double kLeastNorm = 1e-12;
constexpr double kBiasRange = 16;

// The arguments with what a kernel would otherwise have to find by calls of
// the host's code.
struct DeviceArguments {
  WindowAttentionArguments a;
  int64_t places;
  int64_t differences;
  int64_t windows;
  int64_t groups;

  explicit DeviceArguments(const WindowAttentionArguments& of)
      : a(of),
        places(of.places()),
        differences(of.differences()),
        windows(of.windows()),
        groups(of.groups()) {}
};

__device__ int WarpIndex() {
  return static_cast<int>(threadIdx.x) / kWarpThreads;
}
__device__ int WarpLane() {
  return static_cast<int>(threadIdx.x) % kWarpThreads;
}

__device__ double Sigmoid(double x) { return 1 / (1 + exp(-x)); }

// A head of one window.
template <typename T>
struct HeadOfWindow {
  using C = ComputeType<T>;

  const WindowAttentionArguments& a;
  int64_t head;
  int64_t sample;
  int64_t row;
  int64_t column;
  C scale;
  bool scale_learns;

  __device__ HeadOfWindow(const WindowAttentionArguments& of, int64_t window,
                          int64_t of_head)
      : a(of), head(of_head) {
    const int64_t down = a.height / a.window, across = a.width / a.window;
    sample = window / (down * across);
    row = window / across % down;
    column = window % across;
    const double log_scale = Widen(static_cast<const T*>(a.log_scales)[head]);
    scale_learns = log_scale <= kMaxLogScale;
    scale = static_cast<C>(exp(scale_learns ? log_scale : kMaxLogScale));
  }

  // A place's vector in part `part` of `parts`.
  __device__ int64_t Offset(int64_t place, int64_t part, int64_t parts) const {
    const int64_t y = (row * a.window + place / a.window + a.shift) % a.height;
    const int64_t x =
        (column * a.window + place % a.window + a.shift) % a.width;
    const int64_t token = (sample * a.height + y) * a.width + x;
    return ((token * parts + part) * a.heads + head) * a.head_dim;
  }
  __device__ const T* Vector(int64_t place, int64_t part) const {
    return static_cast<const T*>(a.qkv) + Offset(place, part, 3);
  }

  __device__ bool Sees(int64_t i, int64_t j) const {
    if (a.shift == 0) return true;
    const int64_t first = a.window - a.shift;
    if (row == a.height / a.window - 1 &&
        (i / a.window >= first) != (j / a.window >= first)) {
      return false;
    }
    return column != a.width / a.window - 1 ||
           (i % a.window >= first) == (j % a.window >= first);
  }

  __device__ int64_t DifferenceOf(int64_t i, int64_t j) const {
    const int64_t span = 2 * a.window - 1;
    return (i / a.window - j / a.window + a.window - 1) * span + i % a.window -
           j % a.window + a.window - 1;
  }

  __device__ double BiasOf(int64_t difference) const {
    return Widen(static_cast<const T*>(a.biases)[difference * a.heads + head]);
  }

  // What a vector is multiplied by to have the length 1.
  __device__ C FactorOf(const T* vector) const {
    double squares = 0;
    for (int64_t c = 0; c < a.head_dim; ++c) {
      const double x = Widen(vector[c]);
      squares = MultiplyAdd(x, x, squares);
    }
    const double norm = SquareRoot(squares);
    return static_cast<C>(1 / (norm > kLeastNorm ? norm : kLeastNorm));
  }

  __device__ C Cosine(int64_t i, int64_t j, const C* q_factors,
                      const C* k_factors) const {
    const T* const q = Vector(i, 0);
    const T* const k = Vector(j, 1);
    C sum = 0;
    for (int64_t c = 0; c < a.head_dim; ++c) {
      sum = MultiplyAdd(Widen(q[c]) * q_factors[i], Widen(k[c]) * k_factors[j],
                        sum);
    }
    return sum;
  }

  // Row i's probabilities, by a warp.
  __device__ void Probabilities(int64_t i, int64_t places, const C* q_factors,
                                const C* k_factors, C* to) const {
    const C none = -static_cast<C>(INFINITY);
    C highest = none;
    for (int64_t j = WarpLane(); j < places; j += kWarpThreads) {
      to[j] = none;
      if (Sees(i, j)) {
        const double bias = kBiasRange * Sigmoid(BiasOf(DifferenceOf(i, j)));
        to[j] =
            scale * Cosine(i, j, q_factors, k_factors) + static_cast<C>(bias);
      }
      highest = Higher()(highest, to[j]);
    }
    highest = CombineWarp(highest, Higher());
    C sum = 0;
    for (int64_t j = WarpLane(); j < places; j += kWarpThreads) {
      to[j] = Exp(to[j] - highest);
      sum += to[j];
    }
    sum = WarpSum(sum);
    for (int64_t j = WarpLane(); j < places; j += kWarpThreads) to[j] /= sum;
    __syncwarp();
  }
};

// Σ over j of weights[j·stride]·rows(j), of a channel.
template <typename C, typename F>
__device__ C WeightedSum(int64_t places, const C* weights, int64_t stride,
                         F&& value_of) {
  C sum = 0;
  for (int64_t j = 0; j < places; ++j) {
    sum = MultiplyAdd(weights[j * stride], value_of(j), sum);
  }
  return sum;
}

// A block for each head of each window.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    ForwardKernel(const __grid_constant__ DeviceArguments given, T* out) {
  using C = ComputeType<T>;
  const WindowAttentionArguments& a = given.a;
  const int64_t n = given.places;
  C* const q_factors = DynamicShared<C>();
  C* const k_factors = q_factors + n;
  C* const row = k_factors + n + WarpIndex() * n;
  const HeadOfWindow<T> window(a, blockIdx.x / a.heads, blockIdx.x % a.heads);
  for (int64_t i = threadIdx.x; i < n; i += kThreads) {
    q_factors[i] = window.FactorOf(window.Vector(i, 0));
    k_factors[i] = window.FactorOf(window.Vector(i, 1));
  }
  __syncthreads();
  for (int64_t i = WarpIndex(); i < n; i += kWarps) {
    window.Probabilities(i, n, q_factors, k_factors, row);
    for (int64_t c = WarpLane(); c < a.head_dim; c += kWarpThreads) {
      const C sum = WeightedSum(
          n, row, 1, [&](int64_t j) { return Widen(window.Vector(j, 2)[c]); });
      Narrow(sum, out[window.Offset(i, 0, 1) + c]);
    }
    __syncwarp();
  }
}

// By a warp: from the gradient of a vector's direction, of which `direction_of`
// gives a channel, to that of the vector. Both passes find the channels anew.
template <typename T, typename C, typename F>
__device__ void StoreNormalized(const HeadOfWindow<T>& window, int64_t place,
                                int64_t part, C factor, T* gradient,
                                F&& direction_of) {
  const WindowAttentionArguments& a = window.a;
  const T* const vector = window.Vector(place, part);
  C along = 0;
  for (int64_t c = WarpLane(); c < a.head_dim; c += kWarpThreads) {
    along = MultiplyAdd(Widen(vector[c]) * factor, direction_of(c), along);
  }
  // A vector that was too short has no direction to leave out.
  along = factor >= static_cast<C>(1 / kLeastNorm) ? C(0) : WarpSum(along);
  for (int64_t c = WarpLane(); c < a.head_dim; c += kWarpThreads) {
    const C slope =
        factor * (direction_of(c) - along * Widen(vector[c]) * factor);
    Narrow(slope, gradient[window.Offset(place, part, 3) + c]);
  }
}

// A block for each task, one window after the other.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    BackwardKernel(const __grid_constant__ DeviceArguments given,
                   const T* grad_out, T* grad_qkv, ComputeType<T>* scratch,
                   int64_t scratch_of_task, double* sums) {
  using C = ComputeType<T>;
  const WindowAttentionArguments& a = given.a;
  const int64_t n = given.places, task = blockIdx.x;
  const int64_t head = task % a.heads, group = task / a.heads;
  C* const q_factors = DynamicShared<C>();
  C* const k_factors = q_factors + n;
  C* const probabilities = scratch + task * scratch_of_task;
  C* const slopes = probabilities + n * n;
  double* const of_task = sums + task * (given.differences + 1);
  for (int64_t i = threadIdx.x; i <= given.differences; i += kThreads) {
    of_task[i] = 0;
  }
  const int64_t end = given.windows * (group + 1) / given.groups;
  for (int64_t w = given.windows * group / given.groups; w < end; ++w) {
    const HeadOfWindow<T> window(a, w, head);
    for (int64_t i = threadIdx.x; i < n; i += kThreads) {
      q_factors[i] = window.FactorOf(window.Vector(i, 0));
      k_factors[i] = window.FactorOf(window.Vector(i, 1));
    }
    __syncthreads();
    const auto slope_of = [&](int64_t place) {
      return grad_out + window.Offset(place, 0, 1);
    };
    // The gradients of scores.
    double of_scale = 0;
    for (int64_t i = WarpIndex(); i < n; i += kWarps) {
      C* const p = probabilities + i * n;
      C* const slope = slopes + i * n;
      window.Probabilities(i, n, q_factors, k_factors, p);
      C mean = 0;
      for (int64_t j = WarpLane(); j < n; j += kWarpThreads) {
        const T* const v = window.Vector(j, 2);
        const T* const dy = slope_of(i);
        C dot = 0;
        for (int64_t c = 0; c < a.head_dim; ++c) {
          dot = MultiplyAdd(Widen(dy[c]), Widen(v[c]), dot);
        }
        slope[j] = dot;
        mean = MultiplyAdd(p[j], dot, mean);
      }
      mean = WarpSum(mean);
      for (int64_t j = WarpLane(); j < n; j += kWarpThreads) {
        slope[j] = p[j] * (slope[j] - mean);
        if (!window.scale_learns) continue;
        const C of_cosine = slope[j] * window.scale;
        of_scale += static_cast<double>(of_cosine) *
                    window.Cosine(i, j, q_factors, k_factors);
      }
    }
    of_scale = BlockSum<kThreads>(of_scale);
    if (threadIdx.x == 0) of_task[given.differences] += of_scale;
    // Of biases, each of which one thread adds to.
    const int64_t span = 2 * a.window - 1;
    for (int64_t d = threadIdx.x; d < given.differences; d += kThreads) {
      const int64_t down = d / span - (a.window - 1);
      const int64_t across = d % span - (a.window - 1);
      double sum = 0;
      for (int64_t i = 0; i < n; ++i) {
        const int64_t y = i / a.window - down, x = i % a.window - across;
        if (y < 0 || y >= a.window || x < 0 || x >= a.window) continue;
        sum += slopes[i * n + y * a.window + x];
      }
      of_task[d] += sum;
    }
    __syncthreads();
    for (int64_t i = WarpIndex(); i < n; i += kWarps) {
      StoreNormalized(window, i, 0, q_factors[i], grad_qkv, [&](int64_t c) {
        return window.scale * WeightedSum(n, slopes + i * n, 1, [&](int64_t j) {
                 return Widen(window.Vector(j, 1)[c]) * k_factors[j];
               });
      });
      StoreNormalized(window, i, 1, k_factors[i], grad_qkv, [&](int64_t c) {
        return window.scale * WeightedSum(n, slopes + i, n, [&](int64_t j) {
                 return Widen(window.Vector(j, 0)[c]) * q_factors[j];
               });
      });
      for (int64_t c = WarpLane(); c < a.head_dim; c += kWarpThreads) {
        const C sum = WeightedSum(n, probabilities + i, n, [&](int64_t j) {
          return Widen(slope_of(j)[c]);
        });
        Narrow(sum, grad_qkv[window.Offset(i, 2, 3) + c]);
      }
    }
    // The next window's factors overwrite these.
    __syncthreads();
  }
}

// A thread for each bias and scale: sums over groups, in order.
template <typename T>
__global__ void SumKernel(const __grid_constant__ DeviceArguments given,
                          const double* sums, ComputeType<T>* log_scales,
                          T* biases) {
  using C = ComputeType<T>;
  const WindowAttentionArguments& a = given.a;
  const int64_t rows = given.differences + 1, index = GridThread();
  if (index >= rows * a.heads) return;
  const int64_t row = index / a.heads, head = index % a.heads;
  double sum = 0;
  for (int64_t group = 0; group < given.groups; ++group) {
    sum += sums[(group * a.heads + head) * rows + row];
  }
  if (row == given.differences) {
    log_scales[head] = static_cast<C>(sum);
    return;
  }
  const double sigmoid = Sigmoid(Widen(static_cast<const T*>(a.biases)[index]));
  Narrow(static_cast<C>(kBiasRange * sigmoid * (1 - sigmoid) * sum),
         biases[index]);
}

void Forward(Stream& stream, const WindowAttentionArguments& a, void* out,
             void* /*scratch*/) {
  if (a.windows() == 0) return;
  DispatchElement(a.dtype, [&]<typename T>(T) {
    const size_t shared = a.places() * (kWarps + 2) * sizeof(ComputeType<T>);
    Launch(
        {GridFor(a.windows() * a.heads, 1), kThreads, shared, Handle(stream)},
        ForwardKernel<T>, DeviceArguments(a), static_cast<T*>(out));
  });
}

void Backward(Stream& stream, const WindowAttentionArguments& a,
              const WindowAttentionGradients& gradients, void* scratch,
              double* sums) {
  DispatchElement(a.dtype, [&]<typename T>(T) {
    using C = ComputeType<T>;
    const DeviceArguments given(a);
    Launch({GridFor(a.tasks(), 1), kThreads, 2 * a.places() * sizeof(C),
            Handle(stream)},
           BackwardKernel<T>, given, static_cast<const T*>(gradients.out),
           static_cast<T*>(gradients.qkv), static_cast<C*>(scratch),
           a.backward_scratch(), sums);
    Launch({GridFor((a.differences() + 1) * a.heads, kThreads), kThreads, 0,
            Handle(stream)},
           SumKernel<T>, given, static_cast<const double*>(sums),
           static_cast<C*>(gradients.log_scales),
           static_cast<T*>(gradients.biases));
  });
}

}  // namespace

WindowAttentionKernels CudaWindowAttention() {
  return {.forward = Forward, .backward = Backward};
}

}  // namespace trireme
