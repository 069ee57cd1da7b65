#include "models/transformer/position_table.h"

#include <cmath>
#include <vector>

#include "runtime/core/log.h"
#include "runtime/device/host.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

constexpr double kMaxPeriod = 10000.0;

}  // namespace

float SinCosElement(int64_t width, double row, double column, int64_t channel) {
  const int64_t quarter = width / 4;
  const double angle =
      (channel < width / 2 ? column : row) *
      std::pow(kMaxPeriod, -static_cast<double>(channel % quarter) / quarter);
  const bool cosine = channel / quarter % 2 == 1;
  return static_cast<float>(cosine ? std::cos(angle) : std::sin(angle));
}

Tensor SinCosTable(Device& device, int64_t width,
                   std::span<const double> coordinates, DType dtype) {
  CHECK_EQ(width % 4, 0);
  CHECK_EQ(coordinates.size() % 2, 0u);
  const Shape shape{static_cast<int64_t>(coordinates.size() / 2), width};
  if (device.dry()) {
    return Cast(Tensor::Empty(device, shape, DType::kFloat32,
                              MemoryCategory::kParameters, "position table"),
                dtype, "position table");
  }
  std::vector<float> values;
  values.reserve(shape.num_elements());
  for (size_t i = 0; i < coordinates.size(); i += 2) {
    for (int64_t channel = 0; channel < width; ++channel) {
      values.push_back(
          SinCosElement(width, coordinates[i], coordinates[i + 1], channel));
    }
  }
  return Cast(Upload<float>(device, shape, values, MemoryCategory::kParameters,
                            "position table"),
              dtype, "position table");
}

}  // namespace trireme
