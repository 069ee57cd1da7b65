#include "parallel/parameters/frozen_parameters.h"

#include <limits>
#include <vector>

#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

bool IsOfColumns(const Parameter& parameter, const ShardedDim& shard) {
  return parameter.global_shape.Normalize(shard.dim) ==
         parameter.global_shape.rank() - 1;
}

}  // namespace

QuantizedMatrix QuantizedLayout(const Parameter& parameter) {
  const Shape local = LocalShape(parameter.global_shape, parameter.shards);
  QuantizedMatrix layout;
  layout.format = parameter.format;
  layout.columns = local.dim(-1);
  layout.rows = local.num_elements() / layout.columns;
  for (const ShardedDim& shard : parameter.shards) {
    if (!IsOfColumns(parameter, shard)) continue;
    CHECK_EQ(layout.first_column, 0) << parameter.name;
    layout.first_column = shard.index * layout.columns;
  }
  return layout;
}

absl::StatusOr<QuantizationError> FillFrozen(Parameter& parameter,
                                             const FillValue& fill) {
  if (parameter.format == WeightFormat::kFull) {
    RETURN_IF_ERROR(fill(parameter));
    return QuantizationError();
  }
  CpuDevice host(std::numeric_limits<int64_t>::max(),
                 parameter.quantized.codes.device().dry()
                     ? CpuDevice::Mode::kDry
                     : CpuDevice::Mode::kReal);
  Parameter rows = parameter;
  rows.format = WeightFormat::kFull;
  rows.quantized = {};
  std::erase_if(rows.shards, [&](const ShardedDim& shard) {
    return IsOfColumns(parameter, shard);
  });
  rows.value = Tensor::Empty(host, LocalShape(rows.global_shape, rows.shards),
                             rows.dtype, MemoryCategory::kWorkspace, rows.name);
  RETURN_IF_ERROR(fill(rows));
  return Quantize(rows.value.Reshape({-1, rows.value.dim(-1)}),
                  parameter.quantized);
}

void InitializeFrozen(uint64_t seed, Parameter& parameter) {
  CHECK_OK(FillFrozen(parameter, [seed](Parameter& values) {
             InitializeParameter(seed, values);
             return absl::OkStatus();
           }).status());
}

void MakeValues(Device& device, uint64_t seed, Parameter& parameter) {
  if (parameter.format == WeightFormat::kFull) {
    parameter.value = Tensor::Empty(
        device, LocalShape(parameter.global_shape, parameter.shards),
        parameter.dtype, MemoryCategory::kParameters, parameter.name);
  } else {
    parameter.quantized =
        EmptyQuantized(device, QuantizedLayout(parameter), parameter.name);
  }
  InitializeFrozen(seed, parameter);
}

}  // namespace trireme
