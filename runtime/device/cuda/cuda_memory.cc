#include "runtime/device/cuda/cuda_memory.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <map>
#include <utility>

#include "runtime/core/log.h"
#include "runtime/device/cuda/cuda_status.h"
#include "runtime/device/cuda/cuda_stream.h"

namespace trireme {
namespace {

// Blocks begin at lines of the GPU's memory, as those of cudaMalloc do.
constexpr int64_t kGranule = 256;
constexpr int64_t kMinSlabBytes = 32 << 20;

int64_t Rounded(int64_t bytes) {
  return (bytes + kGranule - 1) / kGranule * kGranule;
}

}  // namespace

CudaMemory::~CudaMemory() {
  for (const Slab& slab : slabs_) CheckCuda(cudaFree(slab.begin));
}

CudaStream& CudaMemory::StreamOf(int kind) const {
  return static_cast<CudaStream&>(
      device_.stream(static_cast<StreamKind>(kind)));
}

int CudaMemory::CurrentStream() const {
  for (int kind = 0; kind < kNumStreams; ++kind) {
    if (&device_.stream(static_cast<StreamKind>(kind)) == &device_.stream()) {
      return kind;
    }
  }
  LOG(FATAL) << "the current stream is none of the device's";
  return 0;
}

void* CudaMemory::Poisoned(char* block, int64_t bytes) {
  if (poison_ && block != nullptr) {
    CheckCuda(cudaMemsetAsync(block, 0xFF, static_cast<size_t>(bytes),
                              StreamOf(CurrentStream()).handle()));
  }
  return block;
}

void* CudaMemory::Reuse(int64_t bytes) {
  TakeFreed();
  return Poisoned(free_[CurrentStream()].Take(Rounded(bytes)), bytes);
}

void* CudaMemory::Allocate(int64_t bytes) {
  if (void* const block = Reuse(bytes); block != nullptr) return block;
  const int current = CurrentStream();
  for (int kind = 0; kind < kNumStreams; ++kind) {
    if (kind == current) continue;
    char* const block = free_[kind].Take(Rounded(bytes));
    if (block == nullptr) continue;
    StreamOf(kind).RecordPoint().Wait(StreamOf(current));
    return Poisoned(block, bytes);
  }
  return AddSlab(bytes) ? Reuse(bytes) : nullptr;
}

bool CudaMemory::AddSlab(int64_t bytes) {
  int64_t total = 0;
  for (const Slab& slab : slabs_) total += slab.bytes;
  // Few slabs of what a job needs, none much larger than that.
  const int64_t grown = std::max(kMinSlabBytes, Rounded(total / 4));
  for (const int64_t size : {std::max(Rounded(bytes), grown), Rounded(bytes)}) {
    void* begin = nullptr;
    // Slabs that lie side by side are still two: nothing is cut from the end.
    const cudaError_t error =
        cudaMalloc(&begin, static_cast<size_t>(size + kGranule));
    if (error == cudaErrorMemoryAllocation) {
      // It is not of the kind that stays.
      (void)cudaGetLastError();
      continue;
    }
    CheckCuda(error);
    slabs_.push_back({static_cast<char*>(begin), size});
    free_[CurrentStream()].Add(static_cast<char*>(begin), size);
    return true;
  }
  return false;
}

void CudaMemory::Free(void* block, int64_t bytes) {
  char* const begin = static_cast<char*>(block);
  if (std::this_thread::get_id() == driver_) {
    Poisoned(begin, bytes);
    free_[CurrentStream()].Add(begin, Rounded(bytes));
  } else {
    freed_.push_back({begin, Rounded(bytes)});
  }
}

void CudaMemory::TakeFreed() {
  // Whatever the streams were given until now may use them still.
  if (!freed_.empty()) {
    Passing passing;
    for (int kind = 0; kind < kNumStreams; ++kind) {
      passing.points[kind] = StreamOf(kind).RecordPoint();
    }
    passing.blocks = std::exchange(freed_, {});
    passing_.push_back(std::move(passing));
  }
  std::erase_if(passing_, [this](Passing& passing) {
    for (Event& point : passing.points) {
      if (!point.Test()) return false;
    }
    for (const Block& block : passing.blocks) {
      free_[CurrentStream()].Add(block.begin, block.bytes);
    }
    return true;
  });
}

int64_t CudaMemory::kept_bytes() const {
  int64_t bytes = 0;
  for (const FreeRanges& ranges : free_) bytes += ranges.bytes();
  for (const Block& block : freed_) bytes += block.bytes;
  for (const Passing& passing : passing_) {
    for (const Block& block : passing.blocks) bytes += block.bytes;
  }
  return bytes;
}

void CudaMemory::GiveBack() {
  for (int kind = 0; kind < kNumStreams; ++kind) {
    CheckCuda(cudaStreamSynchronize(StreamOf(kind).handle()));
  }
  TakeFreed();
  // All streams have passed: whose the ranges were is of no account.
  FreeRanges all;
  for (FreeRanges& ranges : free_) {
    for (const auto& [begin, bytes] : ranges.ranges()) all.Add(begin, bytes);
    ranges.Clear();
  }
  std::map<char*, int64_t> kept = all.ranges();
  std::erase_if(slabs_, [&kept](const Slab& slab) {
    const auto range = kept.find(slab.begin);
    if (range == kept.end() || range->second != slab.bytes) return false;
    kept.erase(range);
    CheckCuda(cudaFree(slab.begin));
    return true;
  });
  for (const auto& [begin, bytes] : kept) {
    free_[CurrentStream()].Add(begin, bytes);
  }
}

}  // namespace trireme
