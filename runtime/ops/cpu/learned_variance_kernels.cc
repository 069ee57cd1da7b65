#include "runtime/ops/cpu/learned_variance_kernels.h"

#include <cmath>
#include <numbers>

#include "runtime/ops/cpu/parallel_rows.h"
#include "runtime/ops/cpu/sum_rows.h"

namespace trireme {
namespace {

// Half the distance of two of the 256 values of a picture's channel, which lie
// between −1 and 1; what is beyond kEdge has all that is beyond it.
constexpr double kHalfBin = 1.0 / 255;
constexpr double kEdge = 0.999;
// No value is less likely.
constexpr double kLeastProbability = 1e-12;

double NormalBelow(double x) {
  return 0.5 * std::erfc(-x * std::numbers::sqrt2 / 2);
}

double NormalDensity(double x) {
  return std::exp(-0.5 * x * x) * std::numbers::inv_sqrtpi /
         std::numbers::sqrt2;
}

// A term of an element, in bits, and its slope by the logarithm of the
// variance.
struct Term {
  double value = 0;
  double slope = 0;
};

// KL(N(0, exp(least)) ‖ N(offset, exp(log_variance))).
Term Divergence(double least, double offset, double log_variance) {
  const double inverse = std::exp(-log_variance);
  const double ratio =
      std::exp(least - log_variance) + offset * offset * inverse;
  return {0.5 * (log_variance - least - 1 + ratio) / std::numbers::ln2,
          0.5 * (1 - ratio) / std::numbers::ln2};
}

// −log2 of the chance of the bin of `clean` under the normal distribution of
// that variance, whose mean is `offset` below clean.
Term DecoderLoss(double clean, double offset, double log_variance) {
  const double inverse = std::exp(-0.5 * log_variance);
  const double above = (offset + kHalfBin) * inverse;
  const double below = (offset - kHalfBin) * inverse;
  double chance = 0;
  double slope = 0;  // d chance / d log_variance
  if (clean >= -kEdge) {
    slope += 0.5 * below * NormalDensity(below);
  }
  if (clean <= kEdge) {
    slope -= 0.5 * above * NormalDensity(above);
  }
  if (clean < -kEdge) {
    chance = NormalBelow(above);
  } else if (clean > kEdge) {
    chance = NormalBelow(-below);
  } else {
    // Differences of what is small keep its digits.
    chance = offset > 0 ? NormalBelow(-below) - NormalBelow(-above)
                        : NormalBelow(above) - NormalBelow(below);
  }
  if (!(chance > kLeastProbability)) {
    return {-std::log2(kLeastProbability), 0};
  }
  return {-std::log2(chance), -slope / (chance * std::numbers::ln2)};
}

template <typename T>
struct Row {
  const T* prediction;
  const T* target;
  const VarianceStep& step;
  int64_t channels;

  Row(const LearnedVarianceArguments& a, int64_t row)
      : prediction(static_cast<const T*>(a.prediction) + 2 * row * a.channels),
        target(static_cast<const T*>(a.target) + row * (2 * a.channels + 1)),
        step(a.steps[row / (a.rows / static_cast<int64_t>(a.steps.size()))]),
        channels(a.channels) {}

  bool is_padding() const { return Wide(target[2 * channels]) == 0; }
  double Error(int64_t i) const {
    return Wide(target[i]) - Wide(prediction[i]);
  }
  // By the model's own output v.
  Term Bound(int64_t i) const {
    const double half = 0.5 * (step.most - step.least);
    const double log_variance =
        step.least + half * (Wide(prediction[channels + i]) + 1);
    const double offset = step.mean_per_error * Error(i);
    Term term = step.first ? DecoderLoss(Wide(target[channels + i]), offset,
                                         log_variance)
                           : Divergence(step.least, offset, log_variance);
    term.slope *= half;
    return term;
  }
};

}  // namespace

double LearnedVarianceKernel(const LearnedVarianceArguments& a) {
  return DispatchFloating(a.dtype, [&]<typename T>(T) {
    return SumRows(a.rows, 2 * a.channels, [&](int64_t at) {
      const Row<T> row(a, at);
      double sum = 0;
      if (row.is_padding()) return sum;
      for (int64_t i = 0; i < a.channels; ++i) {
        sum += a.term == LearnedVarianceTerm::kBound
                   ? row.Bound(i).value
                   : row.step.weight * row.Error(i) * row.Error(i);
      }
      return sum;
    });
  });
}

void LearnedVarianceBackwardKernel(const LearnedVarianceArguments& a,
                                   double factor, void* prediction_gradient) {
  DispatchFloating(a.dtype, [&]<typename T>(T) {
    ParallelRows(a.rows, 2 * a.channels, [&](int64_t at) {
      const Row<T> row(a, at);
      T* to = static_cast<T*>(prediction_gradient) + 2 * at * a.channels;
      const bool bound = a.term == LearnedVarianceTerm::kBound;
      for (int64_t i = 0; i < a.channels; ++i) {
        const bool counts = !row.is_padding();
        to[i] = Rounded<T>(counts && !bound
                               ? -2 * factor * row.step.weight * row.Error(i)
                               : 0);
        to[a.channels + i] =
            Rounded<T>(counts && bound ? factor * row.Bound(i).slope : 0);
      }
    });
  });
}

}  // namespace trireme
