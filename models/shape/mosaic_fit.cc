#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>

#include "models/shape/mosaic_cube.h"
#include "models/shape/mosaic_sdf.h"
#include "models/shape/point_samples.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

// Beyond the least scale that covers the surface.
constexpr double kMargin = 1.25;
// Surface points that centres are chosen from and coverage is measured by.
constexpr int64_t kSurfacePoints = 8192;
// Points near the surface that the steps go round and round through.
constexpr int64_t kPool = 16384;

// Adam (Kingma and Ba, 2015) on one array.
class Adam {
 public:
  Adam(int64_t count, double rate)
      : rate_(rate), first_(count), second_(count) {}

  void Step(int step, std::span<const double> gradient,
            const std::function<float&(int64_t)>& parameter) {
    constexpr double kBeta1 = 0.9;
    constexpr double kBeta2 = 0.999;
    const double correct1 = 1 - std::pow(kBeta1, step);
    const double correct2 = 1 - std::pow(kBeta2, step);
    for (size_t i = 0; i < gradient.size(); ++i) {
      first_[i] = kBeta1 * first_[i] + (1 - kBeta1) * gradient[i];
      second_[i] =
          kBeta2 * second_[i] + (1 - kBeta2) * gradient[i] * gradient[i];
      float& value = parameter(static_cast<int64_t>(i));
      value = static_cast<float>(value -
                                 rate_ * (first_[i] / correct1) /
                                     (std::sqrt(second_[i] / correct2) + 1e-8));
    }
  }

 private:
  double rate_;
  std::vector<double> first_;
  std::vector<double> second_;
};

// The gradient of a sum of F at points, each times a factor.
struct Gradient {
  std::vector<double> centers;  // [n, 3]
  std::vector<double> scales;   // [n]
  std::vector<double> values;   // [n, k³]

  explicit Gradient(const MosaicSdf& mosaic)
      : centers(3 * mosaic.size()),
        scales(mosaic.size()),
        values(mosaic.values.size()) {}

  void Clear() {
    std::fill(centers.begin(), centers.end(), 0);
    std::fill(scales.begin(), scales.end(), 0);
    std::fill(values.begin(), values.end(), 0);
  }
};

// F at one point with what its derivatives take.
struct Evaluation {
  std::vector<std::pair<int32_t, CubeSample>> cubes;
  double weights = 0;
  double value = 0;

  bool covered() const { return weights > 0; }
};

Evaluation Evaluate(const MosaicSdf& mosaic, const MosaicField& lookup,
                    const Vector3f& point) {
  Evaluation evaluation;
  for (const int32_t i : lookup.Near(point)) {
    if (!IsWithin(mosaic, i, point)) continue;
    const CubeSample sample = SampleCube(mosaic, i, point);
    evaluation.weights += sample.weight;
    evaluation.value += sample.weight * sample.value;
    evaluation.cubes.emplace_back(i, sample);
  }
  if (evaluation.covered()) evaluation.value /= evaluation.weights;
  return evaluation;
}

// Adds factor · ∂F/∂(p, s, V).
void AddGradient(const MosaicSdf& mosaic, const Evaluation& evaluation,
                 double factor, Gradient& gradient) {
  for (const auto& [i, sample] : evaluation.cubes) {
    const double by_value = factor * sample.weight / evaluation.weights;
    const double by_weight =
        factor * (sample.value - evaluation.value) / evaluation.weights;
    for (int corner = 0; corner < 8; ++corner) {
      gradient.values[i * mosaic.values_of_one() + sample.corners[corner]] +=
          by_value * sample.shares[corner];
    }
    std::array<double, 3> by_u = {by_value * sample.slope.x,
                                  by_value * sample.slope.y,
                                  by_value * sample.slope.z};
    const int axis = sample.largest_axis;
    by_u[axis] -= by_weight * (sample.u[axis] > 0 ? 1 : -1);
    const double inverse = 1.0 / mosaic.scales[i];
    for (int a = 0; a < 3; ++a) {
      gradient.centers[3 * i + a] -= by_u[a] * inverse;
      gradient.scales[i] -= by_u[a] * sample.u[a] * inverse;
    }
  }
}

double SignOf(double x) { return x > 0 ? 1 : x < 0 ? -1 : 0; }

float& Component(Vector3f& v, int64_t axis) {
  return axis == 0 ? v.x : axis == 1 ? v.y : v.z;
}

MosaicSdf InitialMosaic(const ShapeField& field,
                        const std::vector<Vector3f>& surface,
                        const MosaicFitOptions& options) {
  MosaicSdf mosaic{.resolution = options.resolution};
  for (const int32_t i : FarthestPoints(surface, options.grids)) {
    mosaic.centers.push_back(surface[i]);
  }
  double needed = 0;
  for (const Vector3f& point : surface) {
    float least = std::numeric_limits<float>::infinity();
    for (const Vector3f& center : mosaic.centers) {
      const Vector3f to = point - center;
      least = std::min(
          least, std::max({std::abs(to.x), std::abs(to.y), std::abs(to.z)}));
    }
    needed = std::max<double>(needed, least);
  }
  // All points may be centres: then a cube as large as a cell of 128³.
  const auto scale = static_cast<float>(std::max(needed * kMargin, 1.0 / 128));
  mosaic.scales.assign(mosaic.size(), scale);
  const int k = options.resolution;
  std::vector<Vector3f> corners;
  for (const Vector3f& center : mosaic.centers) {
    const auto at = [&](int i) {
      return scale * (2.0f * static_cast<float>(i) / (k - 1) - 1);
    };
    for (int z = 0; z < k; ++z) {
      for (int y = 0; y < k; ++y) {
        for (int x = 0; x < k; ++x) {
          corners.push_back(center + Vector3f{at(x), at(y), at(z)});
        }
      }
    }
  }
  mosaic.values.resize(corners.size());
  field.Distances(corners, mosaic.values);
  return mosaic;
}

double MeanError(const MosaicSdf& mosaic, std::span<const Vector3f> points,
                 std::span<const SignedDistance> truth) {
  const MosaicField field(mosaic);
  double sum = 0;
  for (size_t i = 0; i < points.size(); ++i) {
    sum += std::abs(field.At(points[i]) - truth[i].distance);
  }
  return sum / static_cast<double>(points.size());
}

// |F − sdf| + weight · |∇F − ∇sdf|_1, over the points of one step.
class StepGradient {
 public:
  StepGradient(const MosaicSdf& mosaic, const MosaicFitOptions& options)
      : options_(options),
        // Well within a cell of the grids.
        step_(mosaic.scales[0] / (options.resolution - 1) / 4) {}

  void Add(const MosaicSdf& mosaic, const MosaicField& lookup,
           const Vector3f& point, const SignedDistance& truth,
           Gradient& gradient) const {
    const Evaluation at = Evaluate(mosaic, lookup, point);
    if (!at.covered()) return;
    const double share = 1.0 / options_.points;
    AddGradient(mosaic, at, share * SignOf(at.value - truth.distance),
                gradient);
    if (options_.gradient_weight <= 0) return;
    for (int axis = 0; axis < 3; ++axis) {
      Vector3f ahead = point;
      Vector3f behind = point;
      Component(ahead, axis) += static_cast<float>(step_);
      Component(behind, axis) -= static_cast<float>(step_);
      const Evaluation a = Evaluate(mosaic, lookup, ahead);
      const Evaluation b = Evaluate(mosaic, lookup, behind);
      if (!a.covered() || !b.covered()) continue;
      const double slope = (a.value - b.value) / (2 * step_);
      const double factor = share * options_.gradient_weight *
                            SignOf(slope - truth.gradient[axis]) / (2 * step_);
      AddGradient(mosaic, a, factor, gradient);
      AddGradient(mosaic, b, -factor, gradient);
    }
  }

 private:
  const MosaicFitOptions& options_;
  const double step_;
};

}  // namespace

std::vector<int32_t> FarthestPoints(std::span<const Vector3f> points,
                                    int64_t count) {
  std::vector<int32_t> chosen;
  std::vector<float> distances(points.size(),
                               std::numeric_limits<float>::infinity());
  size_t next = 0;
  const auto most = std::min(count, static_cast<int64_t>(points.size()));
  while (static_cast<int64_t>(chosen.size()) < most) {
    chosen.push_back(static_cast<int32_t>(next));
    const Vector3f from = points[next];
    for (size_t i = 0; i < points.size(); ++i) {
      const Vector3f to = points[i] - from;
      distances[i] = std::min(distances[i], Dot(to, to));
    }
    next = std::max_element(distances.begin(), distances.end()) -
           distances.begin();
  }
  return chosen;
}

MosaicFit FitMosaic(const ShapeField& field, const MosaicFitOptions& options,
                    const RandomStream& random) {
  CHECK(options.grids > 0 && options.resolution >= 2 && options.points > 0);
  CHECK_LE(options.grids, kSurfacePoints);
  const std::vector<Vector3f> surface =
      SampleSurface(field.surface(), kSurfacePoints, random).points;
  MosaicFit fit{.mosaic = InitialMosaic(field, surface, options)};
  MosaicSdf& mosaic = fit.mosaic;
  // Within a cube of the surface, and closer by.
  const std::vector<Vector3f> pool =
      NearSurfacePoints(field.surface(), kPool, random, 0.1 * mosaic.scales[0],
                        0.3 * mosaic.scales[0]);
  std::vector<SignedDistance> truth(pool.size());
#pragma omp parallel for schedule(dynamic, 256)
  for (size_t i = 0; i < pool.size(); ++i) truth[i] = field.At(pool[i]);
  fit.first_error = MeanError(mosaic, pool, truth);

  Adam centers(3 * mosaic.size(), options.place_rate);
  Adam scales(mosaic.size(), options.place_rate);
  Adam values(static_cast<int64_t>(mosaic.values.size()), options.value_rate);
  const StepGradient step_gradient(mosaic, options);
  // Where cubes are many and small, steps would lead to ones that are none.
  const float least_scale = mosaic.scales[0] / 2;
  Gradient gradient(mosaic);
  for (int step = 1; step <= options.steps; ++step) {
    const MosaicField lookup(mosaic);
    gradient.Clear();
    for (int64_t i = 0; i < options.points; ++i) {
      const int64_t at = ((step - 1) * int64_t{options.points} + i) % kPool;
      step_gradient.Add(mosaic, lookup, pool[at], truth[at], gradient);
    }
    centers.Step(step, gradient.centers, [&](int64_t i) -> float& {
      return Component(mosaic.centers[i / 3], i % 3);
    });
    scales.Step(step, gradient.scales,
                [&](int64_t i) -> float& { return mosaic.scales[i]; });
    for (float& scale : mosaic.scales) scale = std::max(scale, least_scale);
    values.Step(step, gradient.values,
                [&](int64_t i) -> float& { return mosaic.values[i]; });
  }
  fit.last_error = MeanError(mosaic, pool, truth);
  const MosaicField fitted(mosaic);
  fit.coverage =
      static_cast<double>(std::count_if(
          surface.begin(), surface.end(),
          [&](const Vector3f& point) { return fitted.Covers(point); })) /
      static_cast<double>(surface.size());
  return fit;
}

}  // namespace trireme
