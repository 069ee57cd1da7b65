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
  const int64_t quarter = width / 4;
  std::vector<float> values;
  values.reserve(shape.num_elements());
  for (size_t i = 0; i < coordinates.size(); i += 2) {
    for (const double coordinate : {coordinates[i + 1], coordinates[i]}) {
      for (const bool cosine : {false, true}) {
        for (int64_t k = 0; k < quarter; ++k) {
          const double angle =
              coordinate *
              std::pow(kMaxPeriod, -static_cast<double>(k) / quarter);
          values.push_back(
              static_cast<float>(cosine ? std::cos(angle) : std::sin(angle)));
        }
      }
    }
  }
  return Cast(Upload<float>(device, shape, values, MemoryCategory::kParameters,
                            "position table"),
              dtype, "position table");
}

}  // namespace trireme
