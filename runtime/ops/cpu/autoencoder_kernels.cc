#include "runtime/ops/cpu/autoencoder_kernels.h"

#include <algorithm>
#include <cmath>

#include "runtime/ops/cpu/parallel_rows.h"
#include "runtime/ops/cpu/sum_rows.h"

namespace trireme {
namespace {

constexpr double kLeastLogVariance = -30;
constexpr double kMostLogVariance = 20;

// A row's moments, and where its gradients go.
template <typename T>
struct Moments {
  const T* mean;
  const T* log_variance;

  Moments(const GaussianArguments& a, int64_t row)
      : mean(static_cast<const T*>(a.moments) + 2 * row * a.channels),
        log_variance(mean + a.channels) {}

  double LogVariance(int64_t i) const {
    return std::clamp(Wide(log_variance[i]), kLeastLogVariance,
                      kMostLogVariance);
  }
  // 0 beyond the bounds.
  double LogVarianceSlope(int64_t i) const {
    return LogVariance(i) == Wide(log_variance[i]) ? 1 : 0;
  }
};

// What a row counts in a divergence.
double WeightOf(const GaussianArguments& a, int64_t row) {
  if (a.counts == nullptr) return 1;
  const int64_t count = a.counts[row / a.set_rows];
  return row % a.set_rows < count ? 1 / static_cast<double>(count * a.channels)
                                  : 0;
}

// Below it a gradient has no direction.
constexpr double kLeastGradient = 1e-12;

// The term at one query. `value(i)`: of evaluation i. `query`: its seven
// columns. Calls
// add(i, slope) for each evaluation whose value the term depends on.
template <typename Value, typename Query, typename AddSlope>
double DistanceTermAt(const DistanceLossArguments& a, const Query* query,
                      Value value, AddSlope add) {
  const double scaled = static_cast<double>(query[3]) / a.truncation;
  const double s = scaled < -1 ? -1 : scaled > 1 ? 1 : scaled;
  if (a.term == DistanceTerm::kDistance) {
    const double difference = value(0) - s;
    const double sign = difference > 0 ? 1 : difference < 0 ? -1 : 0;
    add(0, sign + 2 * difference);
    return sign * difference + difference * difference;
  }
  if (a.term == DistanceTerm::kOccupancy) {
    const double v = value(0);
    const double occupied = scaled < 0 ? 1 : scaled > 0 ? 0 : 0.5;
    // e^−|v| does not overflow.
    const double small = std::exp(-std::abs(v));
    add(0, occupied - (v < 0 ? 1 : small) / (1 + small));
    return std::log1p(small) - (v < 0 ? v : 0) + occupied * v;
  }
  double g[3];
  double squares = 0;
  for (int axis = 0; axis < 3; ++axis) {
    g[axis] = (value(1 + 2 * axis) - value(2 + 2 * axis)) / (2 * a.step);
    squares += g[axis] * g[axis];
  }
  const double length = std::sqrt(squares + kLeastGradient * kLeastGradient);
  double term = 0;
  double slope[3] = {0, 0, 0};
  if (a.term == DistanceTerm::kEikonal) {
    if (!(scaled > -1 && scaled < 1)) return 0;
    const double excess = a.truncation * length - 1;
    term = excess * excess;
    for (int axis = 0; axis < 3; ++axis) {
      slope[axis] = 2 * excess * a.truncation * g[axis] / length;
    }
  } else {
    double along = 0, normal_squares = 0;
    for (int axis = 0; axis < 3; ++axis) {
      const double n = static_cast<double>(query[4 + axis]);
      along += g[axis] * n;
      normal_squares += n * n;
    }
    if (normal_squares == 0) return 0;
    const double cosine = along / length;
    term = 1 - cosine;
    for (int axis = 0; axis < 3; ++axis) {
      const double n = static_cast<double>(query[4 + axis]);
      slope[axis] = -(n - cosine * g[axis] / length) / length;
    }
  }
  for (int axis = 0; axis < 3; ++axis) {
    add(1 + 2 * axis, slope[axis] / (2 * a.step));
    add(2 + 2 * axis, -slope[axis] / (2 * a.step));
  }
  return term;
}

// The term at row `row` of all samples' valid ones; slopes to `add`.
template <typename T, typename AddSlope>
double TermAt(const DistanceLossArguments& a, int64_t row, AddSlope add) {
  const int64_t at = row / a.valid * a.rows + row % a.valid;
  const T* values = static_cast<const T*>(a.values) + at * a.evaluations;
  return DistanceTermAt(
      a, static_cast<const ComputeType<T>*>(a.queries) + 7 * at,
      [values](int i) { return Wide(values[i]); }, add);
}

}  // namespace

void SampleGaussianKernel(const GaussianArguments& a, const void* noise,
                          void* out) {
  DispatchFloating(a.dtype, [&]<typename T>(T) {
    ParallelRows(a.rows, a.channels, [&](int64_t row) {
      const Moments<T> moments(a, row);
      const T* e = static_cast<const T*>(noise) + row * a.channels;
      T* z = static_cast<T*>(out) + row * a.channels;
      for (int64_t i = 0; i < a.channels; ++i) {
        z[i] = Rounded<T>(Wide(moments.mean[i]) +
                          std::exp(0.5 * moments.LogVariance(i)) * Wide(e[i]));
      }
    });
  });
}

void SampleGaussianBackwardKernel(const GaussianArguments& a, const void* noise,
                                  const void* gradient,
                                  void* moments_gradient) {
  DispatchFloating(a.dtype, [&]<typename T>(T) {
    ParallelRows(a.rows, a.channels, [&](int64_t row) {
      const Moments<T> moments(a, row);
      const T* e = static_cast<const T*>(noise) + row * a.channels;
      const T* dz = static_cast<const T*>(gradient) + row * a.channels;
      T* to = static_cast<T*>(moments_gradient) + 2 * row * a.channels;
      for (int64_t i = 0; i < a.channels; ++i) {
        to[i] = dz[i];
        to[a.channels + i] = Rounded<T>(
            Wide(dz[i]) * 0.5 * std::exp(0.5 * moments.LogVariance(i)) *
            Wide(e[i]) * moments.LogVarianceSlope(i));
      }
    });
  });
}

double GaussianDivergenceKernel(const GaussianArguments& a) {
  return DispatchFloating(a.dtype, [&]<typename T>(T) {
    return SumRows(a.rows, a.channels, [&](int64_t row) {
      const Moments<T> moments(a, row);
      const double weight = WeightOf(a, row);
      double sum = 0;
      for (int64_t i = 0; weight > 0 && i < a.channels; ++i) {
        const double mean = Wide(moments.mean[i]), l = moments.LogVariance(i);
        sum += 0.5 * (mean * mean + std::exp(l) - 1 - l);
      }
      return weight * sum;
    });
  });
}

void GaussianDivergenceBackwardKernel(const GaussianArguments& a, double factor,
                                      void* moments_gradient) {
  DispatchFloating(a.dtype, [&]<typename T>(T) {
    ParallelRows(a.rows, a.channels, [&](int64_t row) {
      const Moments<T> moments(a, row);
      T* to = static_cast<T*>(moments_gradient) + 2 * row * a.channels;
      const double weight = factor * WeightOf(a, row);
      if (weight == 0) {
        std::fill(to, to + 2 * a.channels, T{});
        return;
      }
      for (int64_t i = 0; i < a.channels; ++i) {
        to[i] = Rounded<T>(weight * Wide(moments.mean[i]));
        to[a.channels + i] =
            Rounded<T>(weight * 0.5 * (std::exp(moments.LogVariance(i)) - 1) *
                       moments.LogVarianceSlope(i));
      }
    });
  });
}

double DistanceLossKernel(const DistanceLossArguments& a) {
  if (a.valid == 0) return 0;
  return DispatchFloating(a.dtype, [&]<typename T>(T) {
    return SumRows(a.samples * a.valid, a.evaluations, [&](int64_t row) {
      return TermAt<T>(a, row, [](int, double) {});
    });
  });
}

void DistanceLossBackwardKernel(const DistanceLossArguments& a, double factor,
                                void* values_gradient) {
  DispatchFloating(a.dtype, [&]<typename T>(T) {
    T* const gradient = static_cast<T*>(values_gradient);
    std::fill(gradient, gradient + a.samples * a.rows * a.evaluations, T{});
    if (a.valid == 0) return;
    ParallelRows(a.samples * a.valid, a.evaluations, [&](int64_t row) {
      const int64_t at = row / a.valid * a.rows + row % a.valid;
      TermAt<T>(a, row, [&](int i, double slope) {
        gradient[at * a.evaluations + i] = Rounded<T>(factor * slope);
      });
    });
  });
}

}  // namespace trireme
