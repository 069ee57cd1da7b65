#include "runtime/ops/quantization.h"

#include "runtime/core/log.h"
#include "runtime/ops/cpu/quantization_kernels.h"
#include "runtime/ops/kernels.h"

namespace trireme {

QuantizedTensor EmptyQuantized(Device& device, const QuantizedMatrix& layout,
                               std::string_view label) {
  CHECK(layout.format != WeightFormat::kFull);
  return {
      .layout = layout,
      .codes = Tensor::Empty(device, {layout.rows * layout.code_bytes()},
                             DType::kUint8, MemoryCategory::kParameters, label),
      .scales =
          Tensor::Empty(device, {layout.rows * layout.blocks()},
                        DType::kFloat32, MemoryCategory::kParameters, label)};
}

QuantizationError Quantize(const Tensor& matrix,
                           const QuantizedTensor& result) {
  const QuantizedMatrix& layout = result.layout;
  CHECK(matrix.device().on_host()) << matrix.device().name();
  CHECK_EQ(matrix.dim(0), layout.rows);
  CHECK_LE(layout.first_column + layout.columns, matrix.dim(1));
  const QuantizedTensor on_host =
      EmptyQuantized(matrix.device(), layout, "quantized weights");
  QuantizationError error;
  if (!matrix.device().dry()) {
    matrix.device().Synchronize();
    error =
        QuantizeKernel(layout, matrix.dtype(), matrix.dim(1), matrix.raw_data(),
                       on_host.codes.raw_data(), on_host.scales.raw_data());
  }
  result.codes.CopyFrom(on_host.codes);
  result.scales.CopyFrom(on_host.scales);
  return error;
}

Tensor Dequantize(const QuantizedTensor& matrix, DType dtype,
                  std::string_view label) {
  return DequantizeRows(matrix, 0, matrix.layout.rows, dtype, label);
}

Tensor DequantizeRows(const QuantizedTensor& matrix, int64_t begin, int64_t end,
                      DType dtype, std::string_view label) {
  CHECK(matrix.defined()) << label;
  Device& device = matrix.codes.device();
  QuantizedMatrix rows = matrix.layout;
  CHECK(0 <= begin && begin <= end && end <= rows.rows) << label;
  rows.rows = end - begin;
  const auto part = [&](const Tensor& x, int64_t of_row) {
    return x.Slice(begin * of_row, end * of_row).raw_data();
  };
  Tensor values = Tensor::Empty(device, {rows.rows, rows.columns}, dtype,
                                MemoryCategory::kWorkspace, label);
  device.kernels().quantization.dequantize(
      device.stream(), rows, part(matrix.codes, rows.code_bytes()),
      part(matrix.scales, rows.blocks()), dtype, values.raw_data());
  return values;
}

}  // namespace trireme
