#include "runtime/ops/cpu/copy_kernels.h"

#include <algorithm>
#include <cstring>

#include "runtime/ops/cpu/parallel_rows.h"

namespace trireme {
namespace {

template <typename T>
void FillRange(int64_t n, T value, void* to) {
  ParallelBlocks(n, [&](int64_t begin, int64_t end) {
    std::fill(static_cast<T*>(to) + begin, static_cast<T*>(to) + end, value);
  });
}

}  // namespace

void CopyStridedKernel(DType dtype, const StridedCopy& copy, const void* from,
                       void* to) {
  const int64_t size = DTypeSize(dtype);
  const int64_t run_bytes = copy.run * size;
  const auto* source = static_cast<const char*>(from);
  auto* target = static_cast<char*>(to);
  ParallelRows(copy.outer * copy.inner, copy.run, [&](int64_t row) {
    const int64_t outer = row / copy.inner;
    const int64_t inner = row % copy.inner;
    const auto at = [&](const RunPlaces& places) {
      return (places.offset + outer * places.outer + inner * places.inner) *
             size;
    };
    if (source == nullptr) {
      std::memset(target + at(copy.to), 0, run_bytes);
    } else {
      std::memcpy(target + at(copy.to), source + at(copy.from), run_bytes);
    }
  });
}

void CopyRunsKernel(DType dtype, std::span<const ElementRun> runs,
                    const void* from, void* to) {
  const int64_t size = DTypeSize(dtype);
  const auto* source = static_cast<const char*>(from);
  auto* target = static_cast<char*>(to);
  for (const ElementRun& run : runs) {
    std::memcpy(target + run.to * size, source + run.from * size,
                run.count * size);
  }
}

void FillKernel(DType dtype, int64_t n, double value, void* to) {
  switch (dtype) {
    case DType::kInt32:
      return FillRange(n, static_cast<int32_t>(value), to);
    case DType::kInt64:
      return FillRange(n, static_cast<int64_t>(value), to);
    case DType::kBool:
    case DType::kUint8:
      return FillRange(n, static_cast<uint8_t>(value), to);
    default:
      DispatchFloating(dtype, [&]<typename T>(T) {
        FillRange(n, T(static_cast<ComputeType<T>>(value)), to);
      });
  }
}

void AddOffsetKernel(int64_t n, int32_t offset, const int32_t* x, int32_t* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] + offset;
}

void MaskedFillKernel(int64_t n, int32_t value, const int32_t* x,
                      const uint8_t* mask, int32_t* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = mask[i] != 0 ? value : x[i];
}

}  // namespace trireme
