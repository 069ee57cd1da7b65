// CPU kernels behind runtime/ops/quantization.h. Shapes are checked by the
// caller.

#ifndef TRIREME_RUNTIME_OPS_CPU_QUANTIZATION_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_QUANTIZATION_KERNELS_H_

#include <cstdint>

#include "runtime/core/dtype.h"
#include "runtime/ops/kernels/quantization.h"

namespace trireme {

// `matrix`: [rows, all_columns] of the dtype.
QuantizationError QuantizeKernel(const QuantizedMatrix& layout, DType dtype,
                                 int64_t all_columns, const void* matrix,
                                 void* codes, void* scales);
void DequantizeKernel(const QuantizedMatrix& layout, const void* codes,
                      const void* scales, DType dtype, void* values);

// values[rows, columns]: those of columns [first, first + columns) of each row.
// `first` is even, so that a row's codes begin with a byte.
void DequantizeColumnsKernel(const QuantizedMatrix& layout, int64_t first,
                             int64_t columns, const void* codes,
                             const void* scales, DType dtype, void* values);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_QUANTIZATION_KERNELS_H_
