// Matrices of weights in eight or four bits an element, as frozen weights are
// kept (kernels/quantization.h says how).
//
// A rank's columns of a matrix have the codes and scales that they have in the
// whole one: blocks and scales are those of whole rows.

#ifndef TRIREME_RUNTIME_OPS_QUANTIZATION_H_
#define TRIREME_RUNTIME_OPS_QUANTIZATION_H_

#include <cstdint>
#include <string_view>

#include "runtime/device/tensor.h"
#include "runtime/ops/kernels/quantization.h"

namespace trireme {

struct QuantizedTensor {
  QuantizedMatrix layout;
  Tensor codes;   // uint8 [rows · code_bytes]
  Tensor scales;  // fp32 [rows · blocks]

  bool defined() const { return codes.defined(); }
};

// Of an uninitialised matrix, among the parameters.
QuantizedTensor EmptyQuantized(Device& device, const QuantizedMatrix& layout,
                               std::string_view label);

// Writes the columns of `matrix` [rows, all columns], a tensor of the host,
// that `result` has, on any device. Codes are the nearest. A block with an
// infinity or NaN becomes NaN.
QuantizationError Quantize(const Tensor& matrix, const QuantizedTensor& result);

// [rows, columns] of the dtype, rounded once from fp32, in workspace of the
// device.
Tensor Dequantize(const QuantizedTensor& matrix, DType dtype,
                  std::string_view label);
// Of rows [begin, end).
Tensor DequantizeRows(const QuantizedTensor& matrix, int64_t begin, int64_t end,
                      DType dtype, std::string_view label);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_QUANTIZATION_H_
