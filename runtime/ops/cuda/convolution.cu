#include "runtime/ops/cuda/convolution_weights.h"
#include "runtime/ops/cuda/elements.cuh"
#include "runtime/ops/cuda/families.h"

namespace trireme {
namespace {

// A convolution as a product of matrices, [pixels, window] by [window,
// outputs], of which the first is never stored: a block makes a tile of y,
// slice by slice of the window. A slice is kDepth channels of one place of it.
constexpr int kThreads = 256;
constexpr int kPixels = 64;
constexpr int kOutputs = 64;
constexpr int kDepth = 16;
// Each thread makes as many pixels of as many outputs.
constexpr int kOwn = 4;
constexpr int kThreadRows = kPixels / kOwn;
static_assert(kThreadRows * (kOutputs / kOwn) == kThreads);

// A row more than a tile has, so that a thread's stores down a column reach
// different banks.
template <typename T, int kColumns>
using Tile = T[kDepth][kColumns + 1];

// Where the window of a pixel of y begins in x; rows and columns of x, which
// padding makes negative.
struct Corner {
  int64_t sample = 0;
  int64_t row = 0;
  int64_t column = 0;
  bool inside = false;

  __device__ Corner(const ConvolutionProblem& p, int64_t height, int64_t width,
                    int64_t pixel)
      : sample(pixel / (height * width)),
        row(pixel / width % height * p.stride - p.padding_before),
        column(pixel % width * p.stride - p.padding_before),
        inside(sample < p.batch) {}
};

// y's size is a kernel's argument: the problem finds it by divisions.
struct OutputSize {
  int64_t height;
  int64_t width;
};

template <typename T>
__global__ void __launch_bounds__(kThreads)
    ConvolutionKernel(const __grid_constant__ ConvolutionProblem p,
                      const __grid_constant__ ConvolutionOperands operands,
                      const OutputSize size) {
  using C = ComputeType<T>;
  KERNEL_SHARED(x_tile, Tile<C, kPixels>);
  KERNEL_SHARED(weight_tile, Tile<C, kOutputs>);
  const auto* const x = static_cast<const T*>(operands.x);
  const auto* const weight = static_cast<const T*>(operands.weight);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t first_pixel = static_cast<int64_t>(blockIdx.x) * kPixels;
  const int64_t first_output = static_cast<int64_t>(blockIdx.y) * kOutputs;
  // Loads: neighbouring threads take neighbouring channels, of every sixteenth
  // pixel and output.
  constexpr int kLoads = kPixels * kDepth / kThreads;
  static_assert(kOutputs * kDepth / kThreads == kLoads);
  const int depth = thread % kDepth;
  const int load_row = thread / kDepth;
  constexpr int kLoadRows = kThreads / kDepth;
  C sums[kOwn][kOwn] = {};
  for (int64_t place = 0; place < p.kernel * p.kernel; ++place) {
    const int64_t down = place / p.kernel, right = place % p.kernel;
    for (int64_t first = 0; first < p.in_channels; first += kDepth) {
      const int64_t channel = first + depth;
      UNROLL
      for (int i = 0; i < kLoads; ++i) {
        const int at = load_row + i * kLoadRows;
        const Corner corner(p, size.height, size.width, first_pixel + at);
        const int64_t row = corner.row + down, column = corner.column + right;
        const bool read = corner.inside && channel < p.in_channels &&
                          row >= 0 && row < p.height && column >= 0 &&
                          column < p.width;
        x_tile[depth][at] =
            read ? Widen(
                       x[((corner.sample * p.height + row) * p.width + column) *
                             p.in_channels +
                         channel])
                 : C(0);
        const int64_t output = first_output + at;
        weight_tile[depth][at] =
            output < p.out_channels && channel < p.in_channels
                ? Widen(weight[(output * p.in_channels + channel) * p.kernel *
                                   p.kernel +
                               place])
                : C(0);
      }
      __syncthreads();
      UNROLL
      for (int k = 0; k < kDepth; ++k) {
        C pixels[kOwn], outputs[kOwn];
        UNROLL
        for (int i = 0; i < kOwn; ++i) {
          pixels[i] = x_tile[k][thread / kThreadRows + i * kThreadRows];
          outputs[i] = weight_tile[k][thread % kThreadRows + i * kThreadRows];
        }
        UNROLL
        for (int i = 0; i < kOwn; ++i) {
          UNROLL
          for (int j = 0; j < kOwn; ++j) {
            sums[i][j] = MultiplyAdd(pixels[i], outputs[j], sums[i][j]);
          }
        }
      }
      // Nobody writes the next slice before all have read this one.
      __syncthreads();
    }
  }
  const auto* const bias = static_cast<const T*>(operands.bias);
  auto* const y = static_cast<T*>(operands.y);
  UNROLL
  for (int i = 0; i < kOwn; ++i) {
    const int64_t pixel = first_pixel + thread / kThreadRows + i * kThreadRows;
    if (pixel >= p.batch * size.height * size.width) continue;
    UNROLL
    for (int j = 0; j < kOwn; ++j) {
      const int64_t output =
          first_output + thread % kThreadRows + j * kThreadRows;
      if (output >= p.out_channels) continue;
      Narrow(sums[i][j] + (p.bias ? Widen(bias[output]) : C(0)),
             y[pixel * p.out_channels + output]);
    }
  }
}

int64_t WorkspaceBytes(const ConvolutionProblem&) { return 0; }

void Run(Stream& stream, const ConvolutionProblem& p,
         const ConvolutionOperands& operands) {
  const OutputSize size = {p.out_height(), p.out_width()};
  dim3 grid = GridFor(p.batch * size.height * size.width, kPixels);
  grid.y = static_cast<unsigned>((p.out_channels + kOutputs - 1) / kOutputs);
  const LaunchConfig config = {grid, kThreads, 0, Handle(stream)};
  DispatchElement(p.dtype, [&](auto element) {
    Launch(config, ConvolutionKernel<decltype(element)>, p, operands, size);
  });
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    ChannelsLastKernel(const T* weight, T* to, int64_t channels, int64_t places,
                       int64_t elements) {
  const int64_t i = GridThread();
  if (i >= elements) return;
  const int64_t channel = i % channels;
  const int64_t place = i / channels % places;
  const int64_t output = i / (channels * places);
  to[i] = weight[(output * channels + channel) * places + place];
}

}  // namespace

void WeightWithChannelsLast(Stream& stream, const ConvolutionProblem& p,
                            const void* weight, void* to) {
  const int64_t places = p.kernel * p.kernel;
  const int64_t elements = p.out_channels * p.in_channels * places;
  DispatchElement(p.dtype, [&](auto element) {
    using T = decltype(element);
    Launch({GridFor(elements, kThreads), kThreads, 0, Handle(stream)},
           ChannelsLastKernel<T>, static_cast<const T*>(weight),
           static_cast<T*>(to), p.in_channels, places, elements);
  });
}

ConvolutionKernels CudaConvolutions() {
  return {
      .computes_halves = true, .workspace_bytes = WorkspaceBytes, .run = Run};
}

}  // namespace trireme
