#include "runtime/ops/cuda/attention_warps.cuh"
#include "runtime/ops/cuda/families.h"

namespace trireme {
namespace {

// A warp for each block; a sum's order is that of the block's tokens.
template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    MeanKernel(const __grid_constant__ BlockMeanArguments a, const T* x,
               T* means) {
  using C = ComputeType<T>;
  const int64_t row = GridWarp();
  if (row >= a.batch * a.blocks.most) return;
  const int64_t sample = Quotient(row, a.blocks.most);
  // A sample's offsets have one more place than it has blocks.
  const int32_t* const offsets = a.blocks.offsets + row + sample;
  const int32_t* const order = a.blocks.order + sample * a.block_tokens;
  const int32_t count = offsets[1] - offsets[0];
  const C factor = C(1) / static_cast<C>(count > 0 ? count : 1);
  for (int64_t c = WarpLane(); c < a.width; c += kWarpThreads) {
    C sum = 0;
    for (int32_t i = offsets[0]; i < offsets[1]; ++i) {
      sum += Widen(x[(sample * a.tokens + order[i]) * a.width + c]);
    }
    Narrow(sum * factor, means[row * a.width + c]);
  }
}

// A warp for each token.
template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    MeanBackwardKernel(const __grid_constant__ BlockMeanArguments a,
                       const T* grad_means, T* grad_x) {
  using C = ComputeType<T>;
  const int64_t row = GridWarp();
  if (row >= a.batch * a.tokens) return;
  const int64_t sample = Quotient(row, a.tokens);
  const int64_t token = row - sample * a.tokens;
  int32_t block = -1;
  if (token < a.block_tokens) {
    block = a.blocks.of_token[sample * a.block_tokens + token];
  }
  C factor = 0;
  int64_t from = 0;
  if (block >= 0) {
    const int32_t* const offsets =
        a.blocks.offsets + sample * (a.blocks.most + 1) + block;
    factor = C(1) / static_cast<C>(offsets[1] - offsets[0]);
    from = (sample * a.blocks.most + block) * a.width;
  }
  for (int64_t c = WarpLane(); c < a.width; c += kWarpThreads) {
    Narrow(block < 0 ? C(0) : Widen(grad_means[from + c]) * factor,
           grad_x[row * a.width + c]);
  }
}

void Mean(Stream& stream, const BlockMeanArguments& a, const void* x,
          void* means) {
  DispatchElement(a.dtype, [&]<typename T>(T) {
    Launch(ForRows(stream, a.batch * a.blocks.most), MeanKernel<T>, a,
           static_cast<const T*>(x), static_cast<T*>(means));
  });
}

void MeanBackward(Stream& stream, const BlockMeanArguments& a,
                  const void* grad_means, void* grad_x) {
  DispatchElement(a.dtype, [&]<typename T>(T) {
    Launch(ForRows(stream, a.batch * a.tokens), MeanBackwardKernel<T>, a,
           static_cast<const T*>(grad_means), static_cast<T*>(grad_x));
  });
}

}  // namespace

SpatialBlockKernels CudaSpatialBlocks() {
  return {.mean = Mean, .mean_backward = MeanBackward};
}

}  // namespace trireme
