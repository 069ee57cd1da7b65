#include "parallel/exact_sum.h"

#include <cmath>

namespace trireme {

void ExactSum::Add(double term) {
  if (!std::isfinite(term)) {
    words_[kBins] += term;
    return;
  }
  if (term == 0) return;
  // Exponents of bin b: [kLeastExponent + kBits b, ... + kBits).
  int bin = (std::ilogb(term) - kLeastExponent) / kBits;
  for (; term != 0; --bin) {
    const int exponent = kLeastExponent + kBits * bin;
    const double integer = std::trunc(std::ldexp(term, -exponent));
    words_[bin] += integer;
    term -= std::ldexp(integer, exponent);
  }
}

double ExactSum::Total() const {
  double total = words_[kBins];
  for (int bin = 0; bin < kBins; ++bin) {
    total += std::ldexp(words_[bin], kLeastExponent + kBits * bin);
  }
  return total;
}

}  // namespace trireme
