// The memory of a GPU, in the order of its device's streams. A block that is
// freed while a stream is current goes to blocks that are made while the same
// stream is, at once: what uses them comes after. To those of other streams it
// goes once these wait for the first.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_CUDA_MEMORY_H_
#define TRIREME_RUNTIME_DEVICE_CUDA_CUDA_MEMORY_H_

#include <array>
#include <cstdint>
#include <thread>
#include <vector>

#include "runtime/device/device.h"
#include "runtime/device/event.h"
#include "runtime/device/free_ranges.h"
#include "runtime/device/memory_source.h"
#include "runtime/device/stream.h"

namespace trireme {

class CudaStream;

// Cuts blocks from slabs of cudaMalloc. The thread that makes it drives the
// device; others may free.
class CudaMemory final : public MemorySource {
 public:
  // The streams of `device` are CudaStreams. `poison`: memory holds NaN (all
  // ones) until it is written, and again when it is free.
  CudaMemory(Device& device, bool poison) : device_(device), poison_(poison) {}
  ~CudaMemory() override;
  CudaMemory(const CudaMemory&) = delete;
  CudaMemory& operator=(const CudaMemory&) = delete;

  void* Reuse(int64_t bytes) override;
  void* Allocate(int64_t bytes) override;
  void Free(void* block, int64_t bytes) override;
  int64_t kept_bytes() const override;
  // Waits for the GPU.
  void GiveBack() override;

 private:
  struct Slab {
    char* begin;
    int64_t bytes;  // that blocks are cut from
  };
  struct Block {
    char* begin;
    int64_t bytes;
  };
  // Blocks that other threads freed, once the streams have passed the points.
  struct Passing {
    std::array<Event, kNumStreams> points;
    std::vector<Block> blocks;
  };

  int CurrentStream() const;
  CudaStream& StreamOf(int kind) const;
  void* Poisoned(char* block, int64_t bytes);
  // Adds a slab to the free ranges of the current stream; false where the GPU
  // has none.
  bool AddSlab(int64_t bytes);
  // Looks after what other threads freed.
  void TakeFreed();

  Device& device_;
  const bool poison_;
  const std::thread::id driver_ = std::this_thread::get_id();
  std::vector<Slab> slabs_;
  // By StreamKind of those that used them last.
  std::array<FreeRanges, kNumStreams> free_;
  std::vector<Block> freed_;  // by other threads
  std::vector<Passing> passing_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_CUDA_CUDA_MEMORY_H_
