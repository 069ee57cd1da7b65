#include "runtime/ops/cuda/blocks.cuh"
#include "runtime/ops/cuda/elements.cuh"
#include "runtime/ops/cuda/families.h"

namespace trireme {
namespace {

// A lane for each channel of a block of pixels; warps take pixels by turns and
// are added in order.
constexpr int kWarps = 8;

struct Sums {
  double values;
  double squares;
};

template <typename T>
__global__ void __launch_bounds__(kWarps* kWarpThreads)
    SumBlocksKernel(const __grid_constant__ GroupNormArguments a) {
  KERNEL_SHARED(of_warps, Sums[kWarps][kWarpThreads]);
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int64_t channel =
      static_cast<int64_t>(blockIdx.x) * kWarpThreads + lane;
  const int64_t block = blockIdx.y, sample = blockIdx.z;
  const int64_t first = block * kGroupNormBlockPixels;
  int64_t end = first + kGroupNormBlockPixels;
  if (end > a.pixels) end = a.pixels;
  const auto* const x =
      static_cast<const T*>(a.x) + sample * a.pixels * a.channels + channel;
  const bool inside = channel < a.channels;
  Sums sums = {0, 0};
  for (int64_t pixel = first + warp; inside && pixel < end; pixel += kWarps) {
    const double value = Widen(x[pixel * a.channels]);
    sums.values += value;
    sums.squares = MultiplyAdd(value, value, sums.squares);
  }
  of_warps[warp][lane] = sums;
  __syncthreads();
  if (warp != 0 || !inside) return;
  for (int w = 1; w < kWarps; ++w) {
    sums.values += of_warps[w][lane].values;
    sums.squares += of_warps[w][lane].squares;
  }
  double* const to =
      a.block_sums + (sample * gridDim.y + block) * 2 * a.channels + channel;
  to[0] = sums.values;
  to[a.channels] = sums.squares;
}

// A warp for each group of a sample. It puts each channel's factor and shift
// where the sums of the sample's first block were.
template <typename T>
__global__ void __launch_bounds__(kWarpThreads)
    FactorsKernel(const __grid_constant__ GroupNormArguments a,
                  int64_t blocks) {
  const int64_t width = a.channels / a.groups;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * width;
  double* const of_sample =
      a.block_sums + static_cast<int64_t>(blockIdx.y) * blocks * 2 * a.channels;
  Sums sums = {0, 0};
  for (int64_t i = threadIdx.x; i < blocks * width; i += kWarpThreads) {
    const double* const from =
        of_sample + i / width * 2 * a.channels + begin + i % width;
    sums.values += from[0];
    sums.squares += from[a.channels];
  }
  // No lane writes before the sums of all have been read: they exchange theirs.
  sums = {WarpSum(sums.values), WarpSum(sums.squares)};
  const auto count = static_cast<double>(a.pixels * width);
  const double mean = sums.values / count;
  double variance = sums.squares / count - mean * mean;
  if (variance < 0) variance = 0;
  const double inverse = 1 / SquareRoot(variance + a.eps);
  for (int64_t c = begin + threadIdx.x; c < begin + width; c += kWarpThreads) {
    const double factor =
        static_cast<double>(Widen(static_cast<const T*>(a.weight)[c])) *
        inverse;
    of_sample[c] = factor;
    of_sample[a.channels + c] =
        static_cast<double>(Widen(static_cast<const T*>(a.bias)[c])) -
        mean * factor;
  }
}

constexpr int kApplyThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kApplyThreads)
    ApplyKernel(const __grid_constant__ GroupNormArguments a, int64_t blocks,
                T* y) {
  using C = ComputeType<T>;
  const int64_t i = GridThread();
  if (i >= a.batch * a.pixels * a.channels) return;
  const int64_t channel = i % a.channels;
  const double* const factors =
      a.block_sums + i / (a.pixels * a.channels) * blocks * 2 * a.channels +
      channel;
  C value = MultiplyAdd(Widen(static_cast<const T*>(a.x)[i]),
                        static_cast<C>(factors[0]),
                        static_cast<C>(factors[a.channels]));
  if (a.activation == Activation::kSilu) value /= C(1) + Exp(-value);
  Narrow(value, y[i]);
}

void Forward(Stream& stream, const GroupNormArguments& a, void* y) {
  const int64_t blocks = GroupNormBlocks(a.pixels);
  DispatchElement(a.dtype, [&]<typename T>(T) {
    dim3 grid = GridFor(a.channels, kWarpThreads);
    grid.y = static_cast<unsigned>(blocks);
    grid.z = static_cast<unsigned>(a.batch);
    Launch({grid, kWarps * kWarpThreads, 0, Handle(stream)}, SumBlocksKernel<T>,
           a);
    grid =
        dim3(static_cast<unsigned>(a.groups), static_cast<unsigned>(a.batch));
    Launch({grid, kWarpThreads, 0, Handle(stream)}, FactorsKernel<T>, a,
           blocks);
    Launch({GridFor(a.batch * a.pixels * a.channels, kApplyThreads),
            kApplyThreads, 0, Handle(stream)},
           ApplyKernel<T>, a, blocks, static_cast<T*>(y));
  });
}

}  // namespace

GroupNormKernels CudaGroupNorms() { return {.forward = Forward}; }

}  // namespace trireme
