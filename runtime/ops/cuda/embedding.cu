#include "runtime/ops/cuda/check.cuh"
#include "runtime/ops/cuda/elements.cuh"
#include "runtime/ops/cuda/families.h"

namespace trireme {
namespace {

constexpr int kThreads = 256;

__device__ int64_t RowAt(const RowIndices& lookup, int64_t i) {
  return CheckedIndex(lookup.indices[i], 0, lookup.rows, "row of a table:");
}

// Rows are copied as what they are made of: T is a type of an element's size,
// or of 16 bytes where rows are multiples of it. The width is in T.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    GatherRowsKernel(const RowIndices lookup, const T* table, T* out) {
  const int64_t at = GridThread();
  if (at >= lookup.count * lookup.width) return;
  const int64_t i = at / lookup.width;
  out[at] = table[RowAt(lookup, i) * lookup.width + (at - i * lookup.width)];
}

template <typename T>
void GatherRowsAs(Stream& stream, const RowIndices& lookup, int64_t row_bytes,
                  const void* table, void* out) {
  RowIndices units = lookup;
  units.width = row_bytes / static_cast<int64_t>(sizeof(T));
  Launch({GridFor(units.count * units.width, kThreads), kThreads, 0,
          Handle(stream)},
         GatherRowsKernel<T>, units, static_cast<const T*>(table),
         static_cast<T*>(out));
}

void GatherRows(Stream& stream, DType dtype, const RowIndices& lookup,
                const void* table, void* out) {
  const int64_t row_bytes = lookup.width * DTypeSize(dtype);
  if (lookup.count * row_bytes == 0) return;
  const uint64_t multiples = reinterpret_cast<uintptr_t>(table) |
                             reinterpret_cast<uintptr_t>(out) |
                             static_cast<uint64_t>(row_bytes);
  if (multiples % sizeof(uint4) == 0) {
    return GatherRowsAs<uint4>(stream, lookup, row_bytes, table, out);
  }
  switch (DTypeSize(dtype)) {
    case 1:
      return GatherRowsAs<uint8_t>(stream, lookup, row_bytes, table, out);
    case 2:
      return GatherRowsAs<uint16_t>(stream, lookup, row_bytes, table, out);
    case 4:
      return GatherRowsAs<uint32_t>(stream, lookup, row_bytes, table, out);
    default:
      return GatherRowsAs<uint64_t>(stream, lookup, row_bytes, table, out);
  }
}

constexpr int kScatterThreads = 64;

// A thread for each column, so that every element sums in the order of rows.
template <typename T>
__global__ void __launch_bounds__(kScatterThreads)
    ScatterAddRowsKernel(const RowIndices lookup, const T* rows,
                         ComputeType<T>* table) {
  const int64_t column = GridThread();
  if (column >= lookup.width) return;
  for (int64_t i = 0; i < lookup.count; ++i) {
    table[RowAt(lookup, i) * lookup.width + column] +=
        Widen(rows[i * lookup.width + column]);
  }
}

void ScatterAddRows(Stream& stream, DType dtype, const RowIndices& lookup,
                    const void* rows, void* table) {
  if (lookup.count * lookup.width == 0) return;
  DispatchElement(dtype, [&]<typename T>(T) {
    Launch({GridFor(lookup.width, kScatterThreads), kScatterThreads, 0,
            Handle(stream)},
           ScatterAddRowsKernel<T>, lookup, static_cast<const T*>(rows),
           static_cast<ComputeType<T>*>(table));
  });
}

// The angles need fp64: times of 1,000 have few bits left in fp32.
template <typename Time, typename T>
__global__ void __launch_bounds__(kThreads)
    TimestepEmbeddingKernel(int64_t n, int64_t half, double max_period,
                            const Time* times, T* out) {
  using C = ComputeType<T>;
  const int64_t thread = GridThread();
  if (thread >= n * half) return;
  const int64_t i = thread / half;
  const int64_t k = thread - i * half;
  const double angle =
      static_cast<double>(Widen(times[i])) *
      pow(max_period, -static_cast<double>(k) / static_cast<double>(half));
  T* const row = out + i * 2 * half;
  Narrow(static_cast<C>(cos(angle)), row[k]);
  Narrow(static_cast<C>(sin(angle)), row[half + k]);
}

void TimestepEmbedding(Stream& stream, DType time_dtype, DType dtype, int64_t n,
                       int64_t channels, double max_period, const void* times,
                       void* out) {
  const int64_t half = channels / 2;
  if (n * half == 0) return;
  DispatchElement(time_dtype, [&]<typename Time>(Time) {
    DispatchElement(dtype, [&]<typename T>(T) {
      Launch({GridFor(n * half, kThreads), kThreads, 0, Handle(stream)},
             TimestepEmbeddingKernel<Time, T>, n, half, max_period,
             static_cast<const Time*>(times), static_cast<T*>(out));
    });
  });
}

// Where the pixel of an element of tokens [batch, rows·columns, patch, patch,
// channels] lies in [batch, channels, height, width].
__device__ int64_t PixelOf(const PatchArguments& a, int64_t element) {
  const int64_t columns = a.width / a.patch;
  const int64_t c = element % a.channels;
  element /= a.channels;
  const int64_t x = element % a.patch;
  element /= a.patch;
  const int64_t y = element % a.patch;
  element /= a.patch;
  const int64_t column = element % columns;
  element /= columns;
  const int64_t row = element % (a.height / a.patch);
  const int64_t n = element / (a.height / a.patch);
  return ((n * a.channels + c) * a.height + row * a.patch + y) * a.width +
         column * a.patch + x;
}

// kPatchify: from pixels to tokens, else back. T is a type of the element's
// size.
template <typename T, bool kPatchify>
__global__ void __launch_bounds__(kThreads)
    PatchKernel(const PatchArguments a, const T* from, T* to) {
  const int64_t token = GridThread();
  if (token >= a.batch * a.channels * a.height * a.width) return;
  const int64_t pixel = PixelOf(a, token);
  if constexpr (kPatchify) {
    to[token] = from[pixel];
  } else {
    to[pixel] = from[token];
  }
}

template <bool kPatchify>
void MovePatches(Stream& stream, const PatchArguments& a, const void* from,
                 void* to) {
  const int64_t n = a.batch * a.channels * a.height * a.width;
  if (n == 0) return;
  DispatchElement(a.dtype, [&]<typename T>(T) {
    Launch({GridFor(n, kThreads), kThreads, 0, Handle(stream)},
           PatchKernel<T, kPatchify>, a, static_cast<const T*>(from),
           static_cast<T*>(to));
  });
}

void Patchify(Stream& stream, const PatchArguments& a, const void* pixels,
              void* tokens) {
  MovePatches<true>(stream, a, pixels, tokens);
}

void Unpatchify(Stream& stream, const PatchArguments& a, const void* tokens,
                void* pixels) {
  MovePatches<false>(stream, a, tokens, pixels);
}

}  // namespace

EmbeddingKernels CudaEmbeddings() {
  return {.gather_rows = GatherRows,
          .scatter_add_rows = ScatterAddRows,
          .timestep_embedding = TimestepEmbedding,
          .patchify = Patchify,
          .unpatchify = Unpatchify};
}

}  // namespace trireme
