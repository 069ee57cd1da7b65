// Work over rows on the threads of OpenMP. Every row is computed by itself, so
// results do not depend on the number of threads.

#ifndef TRIREME_RUNTIME_OPS_CPU_PARALLEL_ROWS_H_
#define TRIREME_RUNTIME_OPS_CPU_PARALLEL_ROWS_H_

#include <algorithm>
#include <cstdint>

namespace trireme {

// Below this many elements the start of a parallel region costs more than it
// brings.
inline constexpr int64_t kParallelElements = 1 << 14;

// Calls f(row) for each of `rows` rows of `elements_per_row`.
template <typename F>
void ParallelRows(int64_t rows, int64_t elements_per_row, F&& f) {
#pragma omp parallel for schedule(static) if (rows * elements_per_row >= \
                                              kParallelElements)
  for (int64_t row = 0; row < rows; ++row) f(row);
}

// Calls f(begin, end) for blocks of a flat range of n elements. The blocks are
// fixed by n, not by the threads.
template <typename F>
void ParallelBlocks(int64_t n, F&& f) {
  constexpr int64_t kBlock = 4096;
  const int64_t blocks = (n + kBlock - 1) / kBlock;
#pragma omp parallel for schedule(static) if (n >= kParallelElements)
  for (int64_t block = 0; block < blocks; ++block) {
    f(block * kBlock, std::min(n, (block + 1) * kBlock));
  }
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_PARALLEL_ROWS_H_
