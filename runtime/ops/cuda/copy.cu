#include <algorithm>
#include <bit>

#include "runtime/ops/cuda/elements.cuh"
#include "runtime/ops/cuda/families.h"

namespace trireme {
namespace {

constexpr int kThreads = 256;

// What one thread copies: up to 16 bytes.
template <int kBytes>
struct alignas(kBytes) Unit {
  unsigned char bytes[kBytes];
};

// Calls f(Unit) with the largest one of which all of these numbers of bytes (or
// addresses) are multiples.
template <typename F>
void DispatchUnit(uint64_t multiples, F&& f) {
  switch (std::countr_zero(multiples | 16)) {
    case 0:
      return f(Unit<1>());
    case 1:
      return f(Unit<2>());
    case 2:
      return f(Unit<4>());
    case 3:
      return f(Unit<8>());
    default:
      return f(Unit<16>());
  }
}

uint64_t Address(const void* at) { return reinterpret_cast<uintptr_t>(at); }

// Lengths and distances are in units.
template <typename U>
__global__ void __launch_bounds__(kThreads)
    StridedKernel(const StridedCopy copy, const U* from, U* to) {
  const int64_t thread = GridThread();
  if (thread >= copy.outer * copy.inner * copy.run) return;
  const int64_t row = thread / copy.run;
  const int64_t inside = thread - row * copy.run;
  const int64_t outer = row / copy.inner;
  const int64_t inner = row - outer * copy.inner;
  const auto at = [&](const RunPlaces& places) {
    return places.offset + outer * places.outer + inner * places.inner + inside;
  };
  to[at(copy.to)] = from == nullptr ? U{} : from[at(copy.from)];
}

void CopyStrided(Stream& stream, DType dtype, const StridedCopy& copy,
                 const void* from, void* to) {
  const int64_t size = DTypeSize(dtype);
  const int64_t elements = copy.outer * copy.inner * copy.run;
  if (elements == 0) return;
  uint64_t multiples = Address(to) | Address(from);
  for (const int64_t length :
       {copy.run, copy.to.offset, copy.to.outer, copy.to.inner}) {
    multiples |= static_cast<uint64_t>(length * size);
  }
  if (from != nullptr) {
    for (const int64_t length :
         {copy.from.offset, copy.from.outer, copy.from.inner}) {
      multiples |= static_cast<uint64_t>(length * size);
    }
  }
  DispatchUnit(multiples, [&]<typename U>(U) {
    const auto units = [&](int64_t length) {
      return length * size / static_cast<int64_t>(sizeof(U));
    };
    const auto places = [&](const RunPlaces& p) {
      return RunPlaces{units(p.offset), units(p.outer), units(p.inner)};
    };
    const StridedCopy in_units = {copy.outer, copy.inner, units(copy.run),
                                  places(copy.from), places(copy.to)};
    Launch({GridFor(units(elements), kThreads), kThreads, 0, Handle(stream)},
           StridedKernel<U>, in_units, static_cast<const U*>(from),
           static_cast<U*>(to));
  });
}

// The runs of one launch, small enough to be its parameter.
constexpr int kLaunchRuns = 128;
struct Runs {
  ElementRun runs[kLaunchRuns];
};

// A row of blocks for each run.
template <typename U>
__global__ void __launch_bounds__(kThreads)
    CopyRunsKernel(const __grid_constant__ Runs runs, const U* from, U* to) {
  const ElementRun& run = runs.runs[blockIdx.y];
  const int64_t i = GridThread();
  if (i < run.count) to[run.to + i] = from[run.from + i];
}

void CopyRuns(Stream& stream, DType dtype, std::span<const ElementRun> all,
              const void* from, void* to) {
  const int64_t size = DTypeSize(dtype);
  while (!all.empty()) {
    const auto some = all.first(std::min<size_t>(all.size(), kLaunchRuns));
    all = all.subspan(some.size());
    uint64_t multiples = Address(from) | Address(to);
    int64_t longest = 0;
    for (const ElementRun& run : some) {
      multiples |=
          static_cast<uint64_t>((run.from | run.to | run.count) * size);
      longest = std::max(longest, run.count);
    }
    if (longest == 0) continue;
    DispatchUnit(multiples, [&]<typename U>(U) {
      const auto units = [&](int64_t length) {
        return length * size / static_cast<int64_t>(sizeof(U));
      };
      Runs runs = {};
      for (size_t i = 0; i < some.size(); ++i) {
        runs.runs[i] = {units(some[i].from), units(some[i].to),
                        units(some[i].count)};
      }
      dim3 grid = GridFor(units(longest), kThreads);
      grid.y = static_cast<unsigned>(some.size());
      Launch({grid, kThreads, 0, Handle(stream)}, CopyRunsKernel<U>, runs,
             static_cast<const U*>(from), static_cast<U*>(to));
    });
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    FillKernel(int64_t n, T value, T* to) {
  const int64_t i = GridThread();
  if (i < n) to[i] = value;
}

template <typename T>
void FillBits(Stream& stream, int64_t n, T value, void* to) {
  Launch({GridFor(n, kThreads), kThreads, 0, Handle(stream)}, FillKernel<T>, n,
         value, static_cast<T*>(to));
}

void Fill(Stream& stream, DType dtype, int64_t n, double value, void* to) {
  if (n == 0) return;
  switch (dtype) {
    case DType::kFloat32:
      return FillBits(stream, n, static_cast<float>(value), to);
    case DType::kFloat64:
      return FillBits(stream, n, value, to);
    case DType::kBFloat16:
      return FillBits(stream, n, BFloat16(static_cast<float>(value)).bits, to);
    case DType::kFloat16:
      return FillBits(stream, n, Float16(static_cast<float>(value)).bits, to);
    case DType::kInt32:
      return FillBits(stream, n, static_cast<int32_t>(value), to);
    case DType::kInt64:
      return FillBits(stream, n, static_cast<int64_t>(value), to);
    case DType::kBool:
    case DType::kUint8:
      return FillBits(stream, n, static_cast<uint8_t>(value), to);
  }
}

__global__ void __launch_bounds__(kThreads)
    AddOffsetKernel(int64_t n, int32_t offset, const int32_t* x, int32_t* y) {
  const int64_t i = GridThread();
  if (i < n) y[i] = x[i] + offset;
}

void AddOffset(Stream& stream, int64_t n, int32_t offset, const int32_t* x,
               int32_t* y) {
  if (n == 0) return;
  Launch({GridFor(n, kThreads), kThreads, 0, Handle(stream)}, AddOffsetKernel,
         n, offset, x, y);
}

__global__ void __launch_bounds__(kThreads)
    MaskedFillKernel(int64_t n, int32_t value, const int32_t* x,
                     const uint8_t* mask, int32_t* y) {
  const int64_t i = GridThread();
  if (i < n) y[i] = mask[i] != 0 ? value : x[i];
}

void MaskedFill(Stream& stream, int64_t n, int32_t value, const int32_t* x,
                const uint8_t* mask, int32_t* y) {
  if (n == 0) return;
  Launch({GridFor(n, kThreads), kThreads, 0, Handle(stream)}, MaskedFillKernel,
         n, value, x, mask, y);
}

}  // namespace

CopyKernels CudaCopies() {
  return {.strided = CopyStrided,
          .runs = CopyRuns,
          .fill = Fill,
          .add_offset = AddOffset,
          .masked_fill = MaskedFill};
}

}  // namespace trireme
