#include "runtime/ops/cpu/routing_kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "runtime/core/log.h"
#include "runtime/ops/cpu/parallel_rows.h"

namespace trireme {
namespace {

template <typename T>
ComputeType<T> Wide(T x) {
  return static_cast<ComputeType<T>>(x);
}

int32_t ColumnAt(const ColumnChoice& choice, const int32_t* indices,
                 int64_t i) {
  const int32_t column = indices[i];
  CHECK(column >= 0 && column < choice.columns)
      << "column " << column << " of " << choice.columns;
  return column;
}

}  // namespace

void SelectColumnsKernel(DType dtype, const ColumnChoice& choice,
                         const int32_t* indices, const void* x, void* y) {
  DispatchFloating(dtype, [&]<typename T>(T) {
    ParallelRows(choice.rows, choice.k, [&](int64_t row) {
      const T* from = static_cast<const T*>(x) + row * choice.columns;
      for (int64_t i = row * choice.k; i < (row + 1) * choice.k; ++i) {
        static_cast<T*>(y)[i] = from[ColumnAt(choice, indices, i)];
      }
    });
  });
}

void PlaceColumnsKernel(DType dtype, const ColumnChoice& choice,
                        const int32_t* indices, const void* y, void* x) {
  DispatchFloating(dtype, [&]<typename T>(T) {
    ParallelRows(choice.rows, choice.columns, [&](int64_t row) {
      T* to = static_cast<T*>(x) + row * choice.columns;
      std::fill_n(to, choice.columns, T{});
      for (int64_t i = row * choice.k; i < (row + 1) * choice.k; ++i) {
        to[ColumnAt(choice, indices, i)] = static_cast<const T*>(y)[i];
      }
    });
  });
}

// A counting sort: stable, and in one pass over the routes.
void SortRoutesKernel(const RouteSort& sort) {
  const int64_t n = sort.tokens * sort.k;
  std::fill_n(sort.counts, sort.groups, int64_t{0});
  for (int64_t i = 0; i < n; ++i) {
    const int32_t group = sort.group[i];
    CHECK(group >= -1 && group < sort.groups)
        << "group " << group << " of " << sort.groups;
    if (group >= 0) ++sort.counts[group];
  }
  std::vector<int64_t> next(sort.groups, 0);
  for (int64_t g = 1; g < sort.groups; ++g) {
    next[g] = next[g - 1] + sort.counts[g - 1];
  }
  int64_t i = 0;
  for (int64_t token = 0; token < sort.tokens; ++token) {
    for (const int64_t end = i + sort.k; i < end; ++i) {
      const int32_t group = sort.group[i];
      sort.places[i] = -1;
      if (group < 0) continue;
      const int64_t row = next[group]++;
      sort.places[i] = static_cast<int32_t>(row);
      sort.routes[row] = static_cast<int32_t>(i);
      sort.token[row] = static_cast<int32_t>(token);
    }
  }
}

void CountRoutesKernel(DType dtype, int64_t samples, int64_t routes,
                       int64_t groups, const int32_t* group, void* counts) {
  DispatchFloating(dtype, [&]<typename T>(T) {
    using C = ComputeType<T>;
    ParallelRows(samples, routes, [&](int64_t sample) {
      C* of_sample = static_cast<C*>(counts) + sample * groups;
      std::fill_n(of_sample, groups, C{0});
      for (int64_t i = sample * routes; i < (sample + 1) * routes; ++i) {
        CHECK_LT(group[i], groups);
        if (group[i] >= 0) of_sample[group[i]] += 1;
      }
    });
  });
}

void RowDotsKernel(DType dtype, int64_t rows, int64_t width, const void* a,
                   const void* b, void* dots) {
  DispatchFloating(dtype, [&]<typename T>(T) {
    using C = ComputeType<T>;
    ParallelRows(rows, width, [&](int64_t row) {
      const T* left = static_cast<const T*>(a) + row * width;
      const T* right = static_cast<const T*>(b) + row * width;
      double sum = 0;
      for (int64_t i = 0; i < width; ++i) {
        sum += static_cast<double>(Wide(left[i])) *
               static_cast<double>(Wide(right[i]));
      }
      static_cast<C*>(dots)[row] = static_cast<C>(sum);
    });
  });
}

void LogSumExpKernel(DType dtype, int64_t rows, int64_t width, const void* x,
                     void* y) {
  DispatchFloating(dtype, [&]<typename T>(T) {
    ParallelRows(rows, width, [&](int64_t row) {
      const T* from = static_cast<const T*>(x) + row * width;
      double largest = -std::numeric_limits<double>::infinity();
      for (int64_t i = 0; i < width; ++i) {
        largest = std::max(largest, static_cast<double>(Wide(from[i])));
      }
      double sum = 0;
      for (int64_t i = 0; i < width; ++i) {
        sum += std::exp(static_cast<double>(Wide(from[i])) - largest);
      }
      static_cast<T*>(y)[row] =
          static_cast<T>(static_cast<ComputeType<T>>(largest + std::log(sum)));
    });
  });
}

}  // namespace trireme
