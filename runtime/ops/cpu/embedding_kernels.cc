#include "runtime/ops/cpu/embedding_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "runtime/core/log.h"
#include "runtime/ops/cpu/parallel_rows.h"

namespace trireme {
namespace {

int64_t RowAt(const RowIndices& lookup, int64_t i) {
  const int32_t row = lookup.indices[i];
  CHECK(row >= 0 && row < lookup.rows)
      << "row " << row << " of a table of " << lookup.rows;
  return row;
}

// Calls f(pixel offset, token offset) for the runs of a patch row: the pixels
// of one (picture, channel, row) that one token holds. Pixel offsets advance by
// 1 along the run, token offsets by `channels`.
template <typename F>
void ForEachPatchRow(const PatchArguments& a, F&& f) {
  const int64_t columns = a.width / a.patch;
  const int64_t token_size = a.patch * a.patch * a.channels;
  ParallelRows(a.batch * a.channels * a.height, a.width, [&](int64_t row) {
    const int64_t y = row % a.height;
    const int64_t c = row / a.height % a.channels;
    const int64_t n = row / (a.height * a.channels);
    const int64_t first_token =
        (n * (a.height / a.patch) + y / a.patch) * columns;
    const int64_t inside = y % a.patch * a.patch * a.channels + c;
    for (int64_t column = 0; column < columns; ++column) {
      f(row * a.width + column * a.patch,
        (first_token + column) * token_size + inside);
    }
  });
}

}  // namespace

void GatherRowsKernel(DType dtype, const RowIndices& lookup, const void* table,
                      void* out) {
  const int64_t run = lookup.width * DTypeSize(dtype);
  const auto* from = static_cast<const char*>(table);
  auto* to = static_cast<char*>(out);
  ParallelRows(lookup.count, lookup.width, [&](int64_t i) {
    std::memcpy(to + i * run, from + RowAt(lookup, i) * run, run);
  });
}

void ScatterAddRowsKernel(DType dtype, const RowIndices& lookup,
                          const void* rows, void* table) {
  // Threads share the columns, so that every element sums in order of rows.
  constexpr int64_t kColumns = 64;
  const int64_t blocks = (lookup.width + kColumns - 1) / kColumns;
  DispatchFloating(dtype, [&]<typename T>(T) {
    using C = ComputeType<T>;
    ParallelRows(blocks, lookup.count * kColumns, [&](int64_t block) {
      const int64_t begin = block * kColumns;
      const int64_t end = std::min(begin + kColumns, lookup.width);
      for (int64_t i = 0; i < lookup.count; ++i) {
        const T* from = static_cast<const T*>(rows) + i * lookup.width;
        C* to = static_cast<C*>(table) + RowAt(lookup, i) * lookup.width;
        for (int64_t j = begin; j < end; ++j) to[j] += static_cast<C>(from[j]);
      }
    });
  });
}

void TimestepEmbeddingKernel(DType time_dtype, DType dtype, int64_t n,
                             int64_t channels, double max_period,
                             const void* times, void* out) {
  const int64_t half = channels / 2;
  DispatchFloating(time_dtype, [&]<typename Time>(Time) {
    DispatchFloating(dtype, [&]<typename T>(T) {
      ParallelRows(n, channels, [&](int64_t i) {
        const auto time =
            static_cast<double>(static_cast<const Time*>(times)[i]);
        T* row = static_cast<T*>(out) + i * channels;
        for (int64_t k = 0; k < half; ++k) {
          const double angle =
              time * std::pow(max_period, -static_cast<double>(k) /
                                              static_cast<double>(half));
          row[k] = static_cast<T>(static_cast<ComputeType<T>>(std::cos(angle)));
          row[half + k] =
              static_cast<T>(static_cast<ComputeType<T>>(std::sin(angle)));
        }
      });
    });
  });
}

void PatchifyKernel(const PatchArguments& arguments, const void* pixels,
                    void* tokens) {
  DispatchFloating(arguments.dtype, [&]<typename T>(T) {
    ForEachPatchRow(arguments, [&](int64_t pixel, int64_t token) {
      const T* from = static_cast<const T*>(pixels) + pixel;
      T* to = static_cast<T*>(tokens) + token;
      for (int64_t i = 0; i < arguments.patch; ++i) {
        to[i * arguments.channels] = from[i];
      }
    });
  });
}

void UnpatchifyKernel(const PatchArguments& arguments, const void* tokens,
                      void* pixels) {
  DispatchFloating(arguments.dtype, [&]<typename T>(T) {
    ForEachPatchRow(arguments, [&](int64_t pixel, int64_t token) {
      const T* from = static_cast<const T*>(tokens) + token;
      T* to = static_cast<T*>(pixels) + pixel;
      for (int64_t i = 0; i < arguments.patch; ++i) {
        to[i] = from[i * arguments.channels];
      }
    });
  });
}

}  // namespace trireme
