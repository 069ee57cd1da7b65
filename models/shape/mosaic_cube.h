// One cube of a Mosaic-SDF at one point.

#ifndef TRIREME_MODELS_SHAPE_MOSAIC_CUBE_H_
#define TRIREME_MODELS_SHAPE_MOSAIC_CUBE_H_

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "models/shape/mosaic_sdf.h"

namespace trireme {

struct CubeSample {
  double weight = 0;  // relu(1 − |u|_∞), not normalised; u = (x − p) / s
  double value = 0;   // I(u); beyond the border what the border has
  Vector3d u;
  int largest_axis = 0;  // of |u|
  // The interpolation: corners of V within the cube's grid, and how much each
  // counts; and ∂I/∂u.
  std::array<int32_t, 8> corners{};
  std::array<double, 8> shares{};
  Vector3d slope;
};

inline bool IsWithin(const MosaicSdf& mosaic, int64_t cube,
                     const Vector3f& point) {
  const Vector3f to = point - mosaic.centers[cube];
  return std::max({std::abs(to.x), std::abs(to.y), std::abs(to.z)}) <
         mosaic.scales[cube];
}

inline CubeSample SampleCube(const MosaicSdf& mosaic, int64_t cube,
                             const Vector3f& point) {
  const int k = mosaic.resolution;
  const double scale = mosaic.scales[cube];
  CubeSample sample;
  sample.u =
      (point.As<double>() - mosaic.centers[cube].As<double>()) * (1 / scale);
  const std::array<double, 3> u = {sample.u.x, sample.u.y, sample.u.z};
  for (int axis = 1; axis < 3; ++axis) {
    if (std::abs(u[axis]) > std::abs(u[sample.largest_axis])) {
      sample.largest_axis = axis;
    }
  }
  sample.weight = std::max(0.0, 1 - std::abs(u[sample.largest_axis]));
  std::array<int, 3> cell{};
  std::array<double, 3> t{};
  for (int axis = 0; axis < 3; ++axis) {
    const double at = std::clamp((u[axis] + 1) / 2, 0.0, 1.0) * (k - 1);
    cell[axis] = std::min(static_cast<int>(at), k - 2);
    t[axis] = at - cell[axis];
  }
  std::array<double, 3> slope{};
  for (int corner = 0; corner < 8; ++corner) {
    std::array<double, 3> share{};
    std::array<int, 3> at{};
    for (int axis = 0; axis < 3; ++axis) {
      const int far = corner >> axis & 1;
      at[axis] = cell[axis] + far;
      share[axis] = far == 1 ? t[axis] : 1 - t[axis];
    }
    sample.corners[corner] = (at[2] * k + at[1]) * k + at[0];
    sample.shares[corner] = share[0] * share[1] * share[2];
    const double value =
        mosaic.values[cube * mosaic.values_of_one() + sample.corners[corner]];
    sample.value += sample.shares[corner] * value;
    for (int axis = 0; axis < 3; ++axis) {
      const double sign = (corner >> axis & 1) == 1 ? 1 : -1;
      slope[axis] += sign * share[(axis + 1) % 3] * share[(axis + 2) % 3] *
                     value * (k - 1) / 2;
    }
  }
  sample.slope = {slope[0], slope[1], slope[2]};
  return sample;
}

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_MOSAIC_CUBE_H_
