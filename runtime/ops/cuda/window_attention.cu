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
// the host's code, and with sizes of 32 bits: a division of 64 is a call,
// around which registers would be spilled.
template <typename C>
struct DeviceArguments {
  WindowAttentionArguments a;
  int places;
  int differences;
  int window;
  int shift;
  int height;
  int width;
  int heads;
  int64_t windows;
  int64_t groups;
  // Of head i from i·constants_stride on, [1 + differences]: what its cosines
  // are multiplied by, and what is added to scores.
  C* constants;
  int64_t constants_stride;

  DeviceArguments(const WindowAttentionArguments& of, C* to, int64_t stride)
      : a(of),
        places(static_cast<int>(of.places())),
        differences(static_cast<int>(of.differences())),
        window(static_cast<int>(of.window)),
        shift(static_cast<int>(of.shift)),
        height(static_cast<int>(of.height)),
        width(static_cast<int>(of.width)),
        heads(static_cast<int>(of.heads)),
        windows(of.windows()),
        groups(of.groups()),
        constants(to),
        constants_stride(stride) {}
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

  const DeviceArguments<C>& given;
  int head;
  int64_t first_token;  // of the sample
  int row;
  int column;
  bool last_row;
  bool last_column;
  C scale;
  bool scale_learns;

  __device__ HeadOfWindow(const DeviceArguments<C>& of, int64_t window,
                          int of_head)
      : given(of), head(of_head) {
    const auto down = static_cast<uint32_t>(given.height / given.window);
    const auto across = static_cast<uint32_t>(given.width / given.window);
    const auto index = static_cast<uint32_t>(window);
    const uint32_t sample = index / (down * across);
    const uint32_t of_sample = index - sample * (down * across);
    row = static_cast<int>(of_sample / across);
    column = static_cast<int>(of_sample) - row * static_cast<int>(across);
    last_row = row + 1 == static_cast<int>(down);
    last_column = column + 1 == static_cast<int>(across);
    first_token = static_cast<int64_t>(sample) * given.height * given.width;
    const C log_scale = Widen(static_cast<const T*>(given.a.log_scales)[head]);
    scale_learns = log_scale <= kMaxLogScale;
    scale = given.constants[head * given.constants_stride];
  }

  __device__ int64_t head_dim() const { return given.a.head_dim; }

  // A place's vector in part `part` of `parts`.
  __device__ int64_t Offset(int place, int part, int parts) const {
    const int of_row = place / given.window;
    int y = row * given.window + of_row + given.shift;
    int x = column * given.window + place - of_row * given.window + given.shift;
    if (y >= given.height) y -= given.height;
    if (x >= given.width) x -= given.width;
    const int64_t token =
        first_token + static_cast<int64_t>(y) * given.width + x;
    return ((token * parts + part) * given.heads + head) * head_dim();
  }
  __device__ const T* Vector(int place, int part) const {
    return static_cast<const T*>(given.a.qkv) + Offset(place, part, 3);
  }

  __device__ bool Sees(int i, int j) const {
    if (given.shift == 0) return true;
    const int first = given.window - given.shift;
    const int i_row = i / given.window, j_row = j / given.window;
    if (last_row && (i_row >= first) != (j_row >= first)) return false;
    return !last_column || (i - i_row * given.window >= first) ==
                               (j - j_row * given.window >= first);
  }

  __device__ C ScoreBias(int i, int j) const {
    const int i_row = i / given.window, j_row = j / given.window;
    const int span = 2 * given.window - 1;
    const int difference = (i_row - j_row + given.window - 1) * span +
                           (i - i_row * given.window) -
                           (j - j_row * given.window) + given.window - 1;
    return given.constants[head * given.constants_stride + 1 + difference];
  }

  // What a vector is multiplied by to have the length 1.
  __device__ C FactorOf(const T* vector) const {
    double squares = 0;
    for (int64_t c = 0; c < head_dim(); ++c) {
      const double x = Widen(vector[c]);
      squares = MultiplyAdd(x, x, squares);
    }
    const double norm = SquareRoot(squares);
    return static_cast<C>(1 / (norm > kLeastNorm ? norm : kLeastNorm));
  }

  __device__ C Cosine(int i, int j, const C* q_factors,
                      const C* k_factors) const {
    const T* const q = Vector(i, 0);
    const T* const k = Vector(j, 1);
    C sum = 0;
    for (int64_t c = 0; c < head_dim(); ++c) {
      sum = MultiplyAdd(Widen(q[c]) * q_factors[i], Widen(k[c]) * k_factors[j],
                        sum);
    }
    return sum;
  }

  // Row i's probabilities, by a warp.
  __device__ void Probabilities(int i, const C* q_factors, const C* k_factors,
                                C* to) const {
    const int places = given.places;
    const C none = -static_cast<C>(INFINITY);
    C highest = none;
    for (int j = WarpLane(); j < places; j += kWarpThreads) {
      to[j] = none;
      if (Sees(i, j)) {
        to[j] = scale * Cosine(i, j, q_factors, k_factors) + ScoreBias(i, j);
      }
      highest = Higher()(highest, to[j]);
    }
    highest = CombineWarp(highest, Higher());
    C sum = 0;
    for (int j = WarpLane(); j < places; j += kWarpThreads) {
      to[j] = Exp(to[j] - highest);
      sum += to[j];
    }
    sum = WarpSum(sum);
    for (int j = WarpLane(); j < places; j += kWarpThreads) to[j] /= sum;
    __syncwarp();
  }
};

// Σ over j of weights[j·stride]·rows(j), of a channel.
template <typename C, typename F>
__device__ C WeightedSum(int places, const C* weights, int stride,
                         F&& value_of) {
  C sum = 0;
  for (int j = 0; j < places; ++j) {
    sum = MultiplyAdd(weights[j * stride], value_of(j), sum);
  }
  return sum;
}

// A thread for each constant of each head.
template <typename T>
__global__ void ConstantsKernel(
    const __grid_constant__ DeviceArguments<ComputeType<T>> given) {
  using C = ComputeType<T>;
  const int64_t index = GridThread();
  if (index >= static_cast<int64_t>(given.differences + 1) * given.heads) {
    return;
  }
  const int row = static_cast<int>(index) / given.heads;
  const int head = static_cast<int>(index) - row * given.heads;
  double constant = 0;
  if (row == 0) {
    const double log_scale =
        Widen(static_cast<const T*>(given.a.log_scales)[head]);
    constant = exp(log_scale <= kMaxLogScale ? log_scale : kMaxLogScale);
  } else {
    constant = kBiasRange * Sigmoid(Widen(static_cast<const T*>(
                                given.a.biases)[index - given.heads]));
  }
  given.constants[head * given.constants_stride + row] =
      static_cast<C>(constant);
}

// A block for each head of each window.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    ForwardKernel(const __grid_constant__ DeviceArguments<ComputeType<T>> given,
                  T* out) {
  using C = ComputeType<T>;
  const int n = given.places;
  C* const q_factors = DynamicShared<C>();
  C* const k_factors = q_factors + n;
  C* const row = k_factors + n + WarpIndex() * n;
  const auto of_head =
      static_cast<uint32_t>(blockIdx.x) / static_cast<uint32_t>(given.heads);
  const HeadOfWindow<T> window(
      given, of_head, static_cast<int>(blockIdx.x - of_head * given.heads));
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    q_factors[i] = window.FactorOf(window.Vector(i, 0));
    k_factors[i] = window.FactorOf(window.Vector(i, 1));
  }
  __syncthreads();
  for (int i = WarpIndex(); i < n; i += kWarps) {
    window.Probabilities(i, q_factors, k_factors, row);
    for (int64_t c = WarpLane(); c < window.head_dim(); c += kWarpThreads) {
      const C sum = WeightedSum(
          n, row, 1, [&](int j) { return Widen(window.Vector(j, 2)[c]); });
      Narrow(sum, out[window.Offset(i, 0, 1) + c]);
    }
    __syncwarp();
  }
}

// By a warp: from the gradient of a vector's direction, of which `direction_of`
// gives a channel, to that of the vector. Both passes find the channels anew.
template <typename T, typename C, typename F>
__device__ void StoreNormalized(const HeadOfWindow<T>& window, int place,
                                int part, C factor, T* gradient,
                                F&& direction_of) {
  const T* const vector = window.Vector(place, part);
  const int64_t channels = window.head_dim();
  C along = 0;
  for (int64_t c = WarpLane(); c < channels; c += kWarpThreads) {
    along = MultiplyAdd(Widen(vector[c]) * factor, direction_of(c), along);
  }
  // A vector that was too short has no direction to leave out.
  along = factor >= static_cast<C>(1 / kLeastNorm) ? C(0) : WarpSum(along);
  for (int64_t c = WarpLane(); c < channels; c += kWarpThreads) {
    const C slope =
        factor * (direction_of(c) - along * Widen(vector[c]) * factor);
    Narrow(slope, gradient[window.Offset(place, part, 3) + c]);
  }
}

// Where a task's numbers lie.
template <typename C>
struct TaskScratch {
  C* probabilities;
  C* slopes;
  double* sums;

  __device__ TaskScratch(const DeviceArguments<C>& given, int64_t task,
                         C* scratch, int64_t of_task, double* all_sums)
      : probabilities(scratch + task * of_task),
        slopes(probabilities + given.places * given.places),
        sums(all_sums + task * (given.differences + 1)) {}
};

// Row i's probabilities and the gradients of its scores, by a warp. Returns the
// lane's part of the scale's gradient.
template <typename T, typename C>
__device__ double FindSlopes(const HeadOfWindow<T>& window, int i,
                             const C* q_factors, const C* k_factors,
                             const T* grad_out, const TaskScratch<C>& to) {
  const int n = window.given.places;
  C* const p = to.probabilities + i * n;
  C* const slope = to.slopes + i * n;
  window.Probabilities(i, q_factors, k_factors, p);
  const T* const dy = grad_out + window.Offset(i, 0, 1);
  C mean = 0;
  for (int j = WarpLane(); j < n; j += kWarpThreads) {
    const T* const v = window.Vector(j, 2);
    C dot = 0;
    for (int64_t c = 0; c < window.head_dim(); ++c) {
      dot = MultiplyAdd(Widen(dy[c]), Widen(v[c]), dot);
    }
    slope[j] = dot;
    mean = MultiplyAdd(p[j], dot, mean);
  }
  mean = WarpSum(mean);
  double of_scale = 0;
  for (int j = WarpLane(); j < n; j += kWarpThreads) {
    slope[j] = p[j] * (slope[j] - mean);
    if (!window.scale_learns) continue;
    of_scale += static_cast<double>(slope[j] * window.scale) *
                window.Cosine(i, j, q_factors, k_factors);
  }
  return of_scale;
}

// Adds a window's gradients of scores to those of biases, each of which one
// thread has.
template <typename C>
__device__ void AddToBiases(const DeviceArguments<C>& given,
                            const TaskScratch<C>& of) {
  const int n = given.places, span = 2 * given.window - 1;
  for (int d = static_cast<int>(threadIdx.x); d < given.differences;
       d += kThreads) {
    const int of_row = d / span;
    const int down = of_row - (given.window - 1);
    const int across = d - of_row * span - (given.window - 1);
    double sum = 0;
    for (int y = down > 0 ? down : 0;
         y < given.window && y - down < given.window; ++y) {
      for (int x = across > 0 ? across : 0;
           x < given.window && x - across < given.window; ++x) {
        sum += of.slopes[(y * given.window + x) * n +
                         (y - down) * given.window + x - across];
      }
    }
    of.sums[d] += sum;
  }
}

// A block for each task, one window after the other.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1) BackwardKernel(
    const __grid_constant__ DeviceArguments<ComputeType<T>> given,
    const T* grad_out, T* grad_qkv, ComputeType<T>* scratch,
    int64_t scratch_of_task, double* sums) {
  using C = ComputeType<T>;
  const int n = given.places;
  const auto group =
      static_cast<uint32_t>(blockIdx.x) / static_cast<uint32_t>(given.heads);
  const int head = static_cast<int>(blockIdx.x - group * given.heads);
  C* const q_factors = DynamicShared<C>();
  C* const k_factors = q_factors + n;
  const TaskScratch<C> own(given, blockIdx.x, scratch, scratch_of_task, sums);
  for (int i = static_cast<int>(threadIdx.x); i <= given.differences;
       i += kThreads) {
    own.sums[i] = 0;
  }
  const auto windows = static_cast<uint32_t>(given.windows);
  const auto groups = static_cast<uint32_t>(given.groups);
  // As WindowAttentionArguments::FirstWindowOf, whose product passes 32 bits.
  const uint32_t whole = windows / groups, rest = windows - whole * groups;
  const auto first_of = [&](uint32_t g) {
    return g * whole + g * rest / groups;
  };
  for (uint32_t w = first_of(group); w < first_of(group + 1); ++w) {
    const HeadOfWindow<T> window(given, w, head);
    for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
      q_factors[i] = window.FactorOf(window.Vector(i, 0));
      k_factors[i] = window.FactorOf(window.Vector(i, 1));
    }
    __syncthreads();
    double of_scale = 0;
    for (int i = WarpIndex(); i < n; i += kWarps) {
      of_scale += FindSlopes(window, i, q_factors, k_factors, grad_out, own);
    }
    of_scale = BlockSum<kThreads>(of_scale);
    if (threadIdx.x == 0) own.sums[given.differences] += of_scale;
    AddToBiases(given, own);
    __syncthreads();
    for (int i = WarpIndex(); i < n; i += kWarps) {
      StoreNormalized(window, i, 0, q_factors[i], grad_qkv, [&](int64_t c) {
        return window.scale * WeightedSum(n, own.slopes + i * n, 1, [&](int j) {
                 return Widen(window.Vector(j, 1)[c]) * k_factors[j];
               });
      });
      StoreNormalized(window, i, 1, k_factors[i], grad_qkv, [&](int64_t c) {
        return window.scale * WeightedSum(n, own.slopes + i, n, [&](int j) {
                 return Widen(window.Vector(j, 0)[c]) * q_factors[j];
               });
      });
      for (int64_t c = WarpLane(); c < window.head_dim(); c += kWarpThreads) {
        const C sum = WeightedSum(n, own.probabilities + i, n, [&](int j) {
          return Widen(grad_out[window.Offset(j, 0, 1) + c]);
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
__global__ void SumKernel(
    const __grid_constant__ DeviceArguments<ComputeType<T>> given,
    const double* sums, ComputeType<T>* log_scales, T* biases) {
  using C = ComputeType<T>;
  const int rows = given.differences + 1;
  const int64_t index = GridThread();
  if (index >= static_cast<int64_t>(rows) * given.heads) return;
  const int row = static_cast<int>(index) / given.heads;
  const int head = static_cast<int>(index) - row * given.heads;
  double sum = 0;
  for (int64_t group = 0; group < given.groups; ++group) {
    sum += sums[(group * given.heads + head) * rows + row];
  }
  if (row == given.differences) {
    log_scales[head] = static_cast<C>(sum);
    return;
  }
  const double sigmoid =
      Sigmoid(Widen(static_cast<const T*>(given.a.biases)[index]));
  Narrow(static_cast<C>(kBiasRange * sigmoid * (1 - sigmoid) * sum),
         biases[index]);
}

template <typename T>
void FindConstants(Stream& stream,
                   const DeviceArguments<ComputeType<T>>& given) {
  Launch({GridFor(static_cast<int64_t>(given.differences + 1) * given.heads,
                  kThreads),
          kThreads, 0, Handle(stream)},
         ConstantsKernel<T>, given);
}

// Constants lie at the end of the scratch of the first group's tasks, one a
// head, where a task here needs none.
template <typename C>
DeviceArguments<C> Given(const WindowAttentionArguments& a, void* scratch,
                         int64_t scratch_of_task) {
  return {a, static_cast<C*>(scratch) + scratch_of_task - a.differences() - 1,
          scratch_of_task};
}

void Forward(Stream& stream, const WindowAttentionArguments& a, void* out,
             void* scratch) {
  if (a.windows() == 0) return;
  DispatchElement(a.dtype, [&]<typename T>(T) {
    using C = ComputeType<T>;
    const DeviceArguments<C> given = Given<C>(a, scratch, a.forward_scratch());
    FindConstants<T>(stream, given);
    Launch({GridFor(a.windows() * a.heads, 1), kThreads,
            a.places() * (kWarps + 2) * sizeof(C), Handle(stream)},
           ForwardKernel<T>, given, static_cast<T*>(out));
  });
}

void Backward(Stream& stream, const WindowAttentionArguments& a,
              const WindowAttentionGradients& gradients, void* scratch,
              double* sums) {
  DispatchElement(a.dtype, [&]<typename T>(T) {
    using C = ComputeType<T>;
    const DeviceArguments<C> given = Given<C>(a, scratch, a.backward_scratch());
    FindConstants<T>(stream, given);
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
