#include "runtime/ops/cpu/set_kernels.h"

#include <cmath>
#include <vector>

#include "runtime/ops/cpu/parallel_rows.h"
#include "runtime/ops/cpu/sum_rows.h"

namespace trireme {
namespace {

// One group of one set's channels.
struct SetGroup {
  SetGroup(const SetNormArguments& a, int64_t at)
      : set(at / a.groups),
        group(at % a.groups),
        width(a.channels / a.groups),
        count(a.counts[set]),
        first(set * a.rows * a.channels + group * width),
        stride(a.channels) {}

  int64_t elements() const { return count * width; }
  // Calls f(element, channel within the group) of the rows [begin, end).
  template <typename F>
  void ForEach(int64_t begin, int64_t end, F&& f) const {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = first + row * stride;
      for (int64_t c = 0; c < width; ++c) f(at + c, c);
    }
  }

  int64_t set;
  int64_t group;
  int64_t width;
  int64_t count;
  int64_t first;
  int64_t stride;
};

// The rows whose kind counts.
class CountedRows {
 public:
  explicit CountedRows(const SetLossArguments& a)
      : a_(a), shares_(a.sets, 0.0) {
    for (int64_t row = 0; row < a.sets * a.rows; ++row) {
      shares_[row / a.rows] += Has(row) ? static_cast<double>(a.channels) : 0;
    }
    for (double& share : shares_) share = share > 0 ? 1 / share : 0;
  }

  bool Has(int64_t row) const {
    return a_.kinds[row] >= a_.first_kind && a_.kinds[row] <= a_.last_kind;
  }
  // Of one element in its set's mean.
  double ShareOf(int64_t row) const { return shares_[row / a_.rows]; }

 private:
  const SetLossArguments& a_;
  std::vector<double> shares_;
};

// limit·tanh(value) − target, and its slope.
struct Excess {
  Excess(double value, double target, double limit) {
    const double t = std::tanh(value);
    excess = limit * t - target;
    slope = limit * (1 - t * t);
  }
  double excess;
  double slope;
};

}  // namespace

void SetNormKernel(const SetNormArguments& a, const void* bias, double eps,
                   double* moments, void* out) {
  DispatchFloating(a.dtype, [&]<typename T>(T) {
    const T* x = static_cast<const T*>(a.x);
    T* y = static_cast<T*>(out);
    ParallelRows(
        a.sets * a.groups, a.rows * a.channels / a.groups, [&](int64_t at) {
          const SetGroup set(a, at);
          const double n = static_cast<double>(set.elements());
          double mean = 0, variance = 0;
          set.ForEach(0, set.count,
                      [&](int64_t i, int64_t) { mean += Wide(x[i]); });
          if (n > 0) mean /= n;
          set.ForEach(0, set.count, [&](int64_t i, int64_t) {
            const double d = Wide(x[i]) - mean;
            variance += d * d;
          });
          if (n > 0) variance /= n;
          const double scale = 1 / std::sqrt(variance + eps);
          moments[2 * at] = mean;
          moments[2 * at + 1] = scale;
          const T* w = static_cast<const T*>(a.weight) + set.group * set.width;
          const T* b = static_cast<const T*>(bias) + set.group * set.width;
          set.ForEach(0, set.count, [&](int64_t i, int64_t c) {
            y[i] = Rounded<T>((Wide(x[i]) - mean) * scale * Wide(w[c]) +
                              Wide(b[c]));
          });
          set.ForEach(set.count, a.rows,
                      [&](int64_t i, int64_t) { y[i] = T{}; });
        });
  });
}

void SetNormBackwardKernel(const SetNormArguments& a,
                           const SetNormGradients& g) {
  DispatchFloating(a.dtype, [&]<typename T>(T) {
    using C = ComputeType<T>;
    const T* x = static_cast<const T*>(a.x);
    const T* dy = static_cast<const T*>(g.grad_out);
    const T* weight = static_cast<const T*>(a.weight);
    T* dx = static_cast<T*>(g.x);
    ParallelRows(
        a.sets * a.groups, a.rows * a.channels / a.groups, [&](int64_t at) {
          const SetGroup set(a, at);
          const double mean = g.moments[2 * at];
          const double scale = g.moments[2 * at + 1];
          const T* w = weight + set.group * set.width;
          const auto n = static_cast<double>(set.elements());
          double sum = 0, along = 0;
          set.ForEach(0, set.count, [&](int64_t i, int64_t c) {
            const double slope = Wide(dy[i]) * Wide(w[c]);
            sum += slope;
            along += slope * (Wide(x[i]) - mean) * scale;
          });
          if (n > 0) sum /= n;
          if (n > 0) along /= n;
          set.ForEach(0, set.count, [&](int64_t i, int64_t c) {
            const double normed = (Wide(x[i]) - mean) * scale;
            dx[i] = Rounded<T>(
                scale * (Wide(dy[i]) * Wide(w[c]) - sum - normed * along));
          });
          set.ForEach(set.count, a.rows,
                      [&](int64_t i, int64_t) { dx[i] = T{}; });
        });
    if (g.weight == nullptr && g.bias == nullptr) return;
    const int64_t width = a.channels / a.groups;
    ParallelRows(a.groups, a.sets * a.rows * width, [&](int64_t group) {
      for (int64_t c = 0; c < width; ++c) {
        const int64_t channel = group * width + c;
        double weight_sum = 0, bias_sum = 0;
        for (int64_t s = 0; s < a.sets; ++s) {
          const double* moments = g.moments + 2 * (s * a.groups + group);
          for (int64_t row = 0; row < a.counts[s]; ++row) {
            const int64_t i = (s * a.rows + row) * a.channels + channel;
            weight_sum += Wide(dy[i]) * (Wide(x[i]) - moments[0]) * moments[1];
            bias_sum += Wide(dy[i]);
          }
        }
        if (g.weight != nullptr) {
          static_cast<C*>(g.weight)[channel] += static_cast<C>(weight_sum);
        }
        if (g.bias != nullptr) {
          static_cast<C*>(g.bias)[channel] += static_cast<C>(bias_sum);
        }
      }
    });
  });
}

double SetLossKernel(const SetLossArguments& a) {
  const CountedRows counted(a);
  return DispatchFloating(a.dtype, [&]<typename T>(T) {
    return SumRows(a.sets * a.rows, a.channels, [&](int64_t row) {
      if (!counted.Has(row)) return 0.0;
      const T* values = static_cast<const T*>(a.values) + row * a.channels;
      const T* targets = static_cast<const T*>(a.targets) + row * a.channels;
      double sum = 0;
      for (int64_t c = 0; c < a.channels; ++c) {
        const Excess at(Wide(values[c]), Wide(targets[c]), a.limit);
        sum += at.excess * at.excess;
      }
      return sum * counted.ShareOf(row);
    });
  });
}

void SetLossBackwardKernel(const SetLossArguments& a, double factor,
                           void* values_gradient) {
  const CountedRows counted(a);
  DispatchFloating(a.dtype, [&]<typename T>(T) {
    ParallelRows(a.sets * a.rows, a.channels, [&](int64_t row) {
      const T* values = static_cast<const T*>(a.values) + row * a.channels;
      const T* targets = static_cast<const T*>(a.targets) + row * a.channels;
      T* to = static_cast<T*>(values_gradient) + row * a.channels;
      for (int64_t c = 0; c < a.channels; ++c) {
        if (!counted.Has(row)) {
          to[c] = T{};
          continue;
        }
        const Excess at(Wide(values[c]), Wide(targets[c]), a.limit);
        to[c] = Rounded<T>(factor * 2 * at.excess * at.slope *
                           counted.ShareOf(row));
      }
    });
  });
}

}  // namespace trireme
