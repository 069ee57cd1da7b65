// One grid of an emulated kernel: a fiber for each thread of a block, one block
// at a time. Threads run from one collective to the next, in an order that a
// seed draws; warps of 32 meet at shuffles, blocks at barriers. Shared memory
// holds NaN (all ones) until it is written, and again in each block.
//
// Found, with the place in the source: collectives that not all of their
// threads reach or that they reach at different places, shuffles that leave
// out their caller, more shared memory than a block may have.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_GRID_H_
#define TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_GRID_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>
#include <string>

namespace trireme::cuda_emulation {

inline constexpr int kWarpSize = 32;

struct Grid {
  std::string kernel;  // its name in errors
  dim3 blocks;
  dim3 threads;
  size_t dynamic_shared_bytes = 0;
  std::function<void()> body;  // of each thread
};

// 0: in the order of their numbers; 1: in the reverse order; others: random.
void RunGrid(const Grid& grid, uint64_t order_seed);

// The rest is called by the threads of the grid that runs.

// Meets all threads of the block; returns the sum of what they hand over.
int BlockBarrier(const std::source_location& place, int value);

// Meets the lanes of `mask`. The last to arrive runs `combine`, which reads
// what each hands over in `in` and writes what each receives to `out`; both are
// null for lanes that are not in the mask. Where `in` is null it is a barrier;
// what hands something over orders no memory.
using Combine = void (*)(const void* const (&in)[kWarpSize],
                         void* const (&out)[kWarpSize]);
void WarpCollective(const char* kind, const std::source_location& place,
                    uint32_t mask, const void* in, void* out, Combine combine);

// The block's only object of `key`, of NaN bits when its first thread asks.
void* StaticSharedMemory(const void* key, size_t bytes, size_t alignment);
void* DynamicSharedMemory();
size_t DynamicSharedBytes();

// In the warp.
int LaneIndex();

}  // namespace trireme::cuda_emulation

#endif  // TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_GRID_H_
