#include "models/shape/shape_metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "models/shape/nearest_points.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// From one set of points to another.
struct OneWay {
  double mean = 0;
  double mean_square = 0;
  double within = 0;  // the share of points within tau
  double normals = 0;
};

OneWay Compare(const SurfaceSamples& from, const SurfaceSamples& to,
               double tau) {
  const NearestPoints nearest(to.points);
  OneWay sum;
  for (size_t i = 0; i < from.points.size(); ++i) {
    const auto [index, distance] = nearest.Nearest(from.points[i]);
    sum.mean += distance;
    sum.mean_square += distance * distance;
    sum.within += distance <= tau;
    sum.normals += std::abs(
        Dot(from.normals[i].As<double>(), to.normals[index].As<double>()));
  }
  const double share = 1.0 / static_cast<double>(from.points.size());
  return {sum.mean * share, sum.mean_square * share, sum.within * share,
          sum.normals * share};
}

double MeanSquare(std::span<const Vector3f> from, const NearestPoints& to) {
  double sum = 0;
  for (const Vector3f& point : from) {
    const double distance = to.Nearest(point).distance;
    sum += distance * distance;
  }
  return sum / static_cast<double>(from.size());
}

}  // namespace

absl::StatusOr<SurfaceComparison> CompareSurfaces(const SurfaceSamples& x,
                                                  const SurfaceSamples& y,
                                                  double tau) {
  CHECK(x.points.size() == x.normals.size() &&
        y.points.size() == y.normals.size());
  if (x.points.empty() || y.points.empty()) {
    return InvalidArgument("{} and {} points, expected at least one of each",
                           x.points.size(), y.points.size());
  }
  const OneWay there = Compare(x, y, tau);
  const OneWay back = Compare(y, x, tau);
  SurfaceComparison result;
  result.chamfer_l1 = (there.mean + back.mean) / 2;
  result.chamfer_l2 = there.mean_square + back.mean_square;
  const double shares = there.within + back.within;
  result.f_score = shares > 0 ? 2 * there.within * back.within / shares : 0;
  result.normal_consistency = (there.normals + back.normals) / 2;
  return result;
}

double VolumeIou(std::span<const float> x, std::span<const float> y) {
  CHECK_EQ(x.size(), y.size());
  int64_t both = 0;
  int64_t either = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    both += x[i] < 0 && y[i] < 0;
    either += x[i] < 0 || y[i] < 0;
  }
  return either > 0 ? static_cast<double>(both) / static_cast<double>(either)
                    : 1;
}

absl::StatusOr<double> ChamferDistance(std::span<const Vector3f> x,
                                       std::span<const Vector3f> y) {
  if (x.empty() || y.empty()) {
    return InvalidArgument("{} and {} points, expected at least one of each",
                           x.size(), y.size());
  }
  return MeanSquare(x, NearestPoints(y)) + MeanSquare(y, NearestPoints(x));
}

SetComparison CompareSets(
    int64_t generated, int64_t real,
    const std::function<double(int64_t, int64_t)>& distance) {
  CHECK(generated > 0 && real > 0) << generated << ", " << real;
  const int64_t all = generated + real;
  // Of the shapes first … last - 1 the one nearest to `from`, and how near.
  const auto nearest = [&](int64_t from, int64_t first, int64_t last) {
    std::pair<double, int64_t> best{std::numeric_limits<double>::infinity(),
                                    first};
    for (int64_t to = first; to < last; ++to) {
      if (to == from) continue;
      if (const double d = distance(from, to); d < best.first) best = {d, to};
    }
    return best;
  };
  SetComparison result;
  for (int64_t r = generated; r < all; ++r) {
    result.mmd += nearest(r, 0, generated).first / static_cast<double>(real);
  }
  std::set<int64_t> covered;
  for (int64_t g = 0; g < generated; ++g) {
    covered.insert(nearest(g, generated, all).second);
  }
  result.coverage =
      static_cast<double>(covered.size()) / static_cast<double>(real);
  int64_t right = 0;
  for (int64_t i = 0; i < all; ++i) {
    right += (nearest(i, 0, all).second < generated) == (i < generated);
  }
  result.one_nn_accuracy =
      static_cast<double>(right) / static_cast<double>(all);
  return result;
}

absl::StatusOr<SetComparison> CompareShapeSets(
    const std::vector<std::vector<Vector3f>>& generated,
    const std::vector<std::vector<Vector3f>>& real) {
  if (generated.empty() || real.empty()) {
    return InvalidArgument("{} generated and {} real shapes, expected both",
                           generated.size(), real.size());
  }
  std::vector<std::span<const Vector3f>> shapes(generated.begin(),
                                                generated.end());
  shapes.insert(shapes.end(), real.begin(), real.end());
  std::vector<NearestPoints> trees;
  for (const auto& shape : shapes) {
    if (shape.empty()) {
      return InvalidArgument("shape {} has no points", trees.size());
    }
    trees.emplace_back(shape);
  }
  const auto count = static_cast<int64_t>(shapes.size());
  std::vector<double> distances(count * count);
#pragma omp parallel for schedule(dynamic)
  for (int64_t a = 0; a < count; ++a) {
    for (int64_t b = 0; b < a; ++b) {
      distances[a * count + b] = distances[b * count + a] =
          MeanSquare(shapes[a], trees[b]) + MeanSquare(shapes[b], trees[a]);
    }
  }
  return CompareSets(
      static_cast<int64_t>(generated.size()), static_cast<int64_t>(real.size()),
      [&](int64_t a, int64_t b) { return distances[a * count + b]; });
}

}  // namespace trireme
