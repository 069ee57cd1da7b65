// Sums over rows in fp64 that do not depend on the number of threads, for
// kernels of losses.

#ifndef TRIREME_RUNTIME_OPS_CPU_SUM_ROWS_H_
#define TRIREME_RUNTIME_OPS_CPU_SUM_ROWS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "runtime/core/dtype.h"
#include "runtime/ops/cpu/parallel_rows.h"

namespace trireme {

template <typename T>
double Wide(T x) {
  return static_cast<double>(x);
}

// By way of the compute type, which is how other devices get there.
template <typename T>
T Rounded(double x) {
  return static_cast<T>(static_cast<ComputeType<T>>(x));
}

// The sum of f(row) over rows, by blocks of a fixed size.
template <typename F>
double SumRows(int64_t rows, int64_t elements_per_row, F&& f) {
  constexpr int64_t kBlockRows = 64;
  const int64_t blocks = (rows + kBlockRows - 1) / kBlockRows;
  std::vector<double> sums(blocks);
  ParallelRows(blocks, kBlockRows * elements_per_row, [&](int64_t block) {
    const int64_t end = std::min(rows, (block + 1) * kBlockRows);
    for (int64_t row = block * kBlockRows; row < end; ++row) {
      sums[block] += f(row);
    }
  });
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_SUM_ROWS_H_
