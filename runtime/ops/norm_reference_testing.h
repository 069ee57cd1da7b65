// Norms and their gradients in double precision, by the formulas.

#ifndef TRIREME_RUNTIME_OPS_NORM_REFERENCE_TESTING_H_
#define TRIREME_RUNTIME_OPS_NORM_REFERENCE_TESTING_H_

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/ops/normalization.h"

namespace trireme {

constexpr double kEps = 1e-6;

inline std::string KindName(NormKind kind) {
  return kind == NormKind::kLayer ? "LayerNorm" : "RMSNorm";
}

// The normalised rows of x[.., h] and what their gradient needs.
struct Normed {
  std::vector<double> values;
  std::vector<double> rstd;
};

inline Normed NormOf(NormKind kind, const std::vector<double>& x, int64_t h) {
  Normed result{x, {}};
  for (size_t row = 0; row < x.size() / h; ++row) {
    double* n = &result.values[row * h];
    double mean = 0, squares = 0;
    for (int64_t i = 0; i < h; ++i) mean += n[i] / static_cast<double>(h);
    if (kind == NormKind::kRms) mean = 0;
    for (int64_t i = 0; i < h; ++i) {
      n[i] -= mean;
      squares += n[i] * n[i] / static_cast<double>(h);
    }
    result.rstd.push_back(1 / std::sqrt(squares + kEps));
    for (int64_t i = 0; i < h; ++i) n[i] *= result.rstd.back();
  }
  return result;
}

// dx of the norm from dn, by the chain rule through mean and variance.
inline std::vector<double> NormBackwardOf(NormKind kind, const Normed& normed,
                                          const std::vector<double>& dn,
                                          int64_t h) {
  std::vector<double> dx(dn.size());
  for (size_t row = 0; row < dn.size() / h; ++row) {
    double mean = 0, dot = 0;
    for (int64_t i = 0; i < h; ++i) {
      mean += dn[row * h + i] / static_cast<double>(h);
      dot +=
          dn[row * h + i] * normed.values[row * h + i] / static_cast<double>(h);
    }
    if (kind == NormKind::kRms) mean = 0;
    for (int64_t i = 0; i < h; ++i) {
      dx[row * h + i] = normed.rstd[row] * (dn[row * h + i] - mean -
                                            normed.values[row * h + i] * dot);
    }
  }
  return dx;
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_NORM_REFERENCE_TESTING_H_
