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

float SinCosElement(int64_t width, std::span<const double> coordinates,
                    int64_t channel) {
  const auto axes = static_cast<int64_t>(coordinates.size());
  const int64_t half = width / (2 * axes);
  if (channel >= 2 * half * axes) return 0;
  const int64_t axis = axes - 1 - channel / (2 * half);
  const double angle =
      coordinates[axis] *
      std::pow(kMaxPeriod, -static_cast<double>(channel % half) / half);
  const bool cosine = channel / half % 2 == 1;
  return static_cast<float>(cosine ? std::cos(angle) : std::sin(angle));
}

Tensor SinCosTable(Device& device, int64_t width, int axes,
                   std::span<const double> coordinates, DType dtype) {
  CHECK_EQ(coordinates.size() % axes, 0u);
  const Shape shape{static_cast<int64_t>(coordinates.size()) / axes, width};
  if (device.dry()) {
    return Cast(Tensor::Empty(device, shape, DType::kFloat32,
                              MemoryCategory::kParameters, "position table"),
                dtype, "position table");
  }
  std::vector<float> values;
  values.reserve(shape.num_elements());
  for (size_t i = 0; i < coordinates.size(); i += axes) {
    for (int64_t channel = 0; channel < width; ++channel) {
      values.push_back(
          SinCosElement(width, coordinates.subspan(i, axes), channel));
    }
  }
  return Cast(Upload<float>(device, shape, values, MemoryCategory::kParameters,
                            "position table"),
              dtype, "position table");
}

}  // namespace trireme
