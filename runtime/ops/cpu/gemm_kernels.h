// The vectorised loops around matrix products: conversion of rows between
// 16-bit types and fp32, and sums of columns.

#ifndef TRIREME_RUNTIME_OPS_CPU_GEMM_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_GEMM_KERNELS_H_

#include <cstdint>

#include "runtime/core/dtype.h"

namespace trireme {

// A bound for buffers on the stack.
inline constexpr int64_t kMaxSummedColumns = 2048;

void WidenRow(const BFloat16* from, int64_t count, float* to);
void WidenRow(const Float16* from, int64_t count, float* to);
// Rounds to nearest even.
void RoundRow(const float* from, int64_t count, BFloat16* to);
void RoundRow(const float* from, int64_t count, Float16* to);

// out[columns] += Σ over rows of x[rows, columns], on several threads; the bits
// do not depend on how many.
void AddColumnSums(const BFloat16* x, int64_t rows, int64_t columns,
                   float* out);
void AddColumnSums(const Float16* x, int64_t rows, int64_t columns, float* out);
void AddColumnSums(const float* x, int64_t rows, int64_t columns, float* out);
void AddColumnSums(const double* x, int64_t rows, int64_t columns, double* out);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_GEMM_KERNELS_H_
