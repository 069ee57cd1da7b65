#include "runtime/ops/float8.h"

#include "runtime/core/log.h"
#include "runtime/ops/kernels.h"

namespace trireme {
namespace {

Float8Vectors VectorsOf(const Tensor& matrix, Float8Of of) {
  return {.dtype = matrix.dtype(),
          .rows = matrix.num_elements() / matrix.dim(-1),
          .columns = matrix.dim(-1),
          .of_columns = of == Float8Of::kColumns};
}

void CheckScales(const Tensor& scales, const Float8Vectors& vectors) {
  CHECK(scales.dtype() == DType::kFloat32) << scales.dtype();
  CHECK_EQ(scales.num_elements(), vectors.count());
}

void CheckOne(const Tensor& scale) {
  CHECK(scale.dtype() == DType::kFloat32) << scale.dtype();
  CHECK_EQ(scale.num_elements(), 1);
}

}  // namespace

void Float8Scales(const Tensor& matrix, Float8Of of, const Tensor& scales) {
  const Float8Vectors vectors = VectorsOf(matrix, of);
  CheckScales(scales, vectors);
  Device& device = matrix.device();
  device.kernels().float8.scales(device.stream(), vectors, matrix.raw_data(),
                                 scales.raw_data());
}

QuantizedTensor ToFloat8(const Tensor& matrix, Float8Of of,
                         const Tensor& scales, std::string_view label) {
  const Float8Vectors vectors = VectorsOf(matrix, of);
  CheckScales(scales, vectors);
  Device& device = matrix.device();
  QuantizedTensor result = {
      .layout = Float8Matrix(vectors.count(), vectors.length()),
      .codes = Tensor::Empty(device, {matrix.num_elements()}, DType::kUint8,
                             MemoryCategory::kWorkspace, label),
      .scales = scales};
  device.kernels().float8.quantize(device.stream(), vectors, matrix.raw_data(),
                                   scales.raw_data(), result.codes.raw_data());
  return result;
}

QuantizedTensor ToFloat8Whole(const Tensor& matrix, Float8Of of,
                              const Tensor& scale, const Tensor& needed,
                              std::string_view label) {
  const Float8Vectors vectors = VectorsOf(matrix, of);
  CheckOne(scale);
  CheckOne(needed);
  Device& device = matrix.device();
  QuantizedTensor result = {
      .layout = Float8Matrix(vectors.count(), vectors.length()),
      .codes = Tensor::Empty(device, {matrix.num_elements()}, DType::kUint8,
                             MemoryCategory::kWorkspace, label),
      .scales = scale};
  device.kernels().float8.quantize_whole(
      device.stream(), vectors, matrix.raw_data(), scale.raw_data(),
      needed.raw_data(), result.codes.raw_data());
  return result;
}

void RaiseFloat8Needed(const Tensor& matrix, const Tensor& needed) {
  CheckOne(needed);
  Device& device = matrix.device();
  device.kernels().float8.quantize_whole(
      device.stream(), VectorsOf(matrix, Float8Of::kRows), matrix.raw_data(),
      /*scale=*/nullptr, needed.raw_data(), /*codes=*/nullptr);
}

}  // namespace trireme
