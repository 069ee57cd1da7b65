#include "parallel/optimizer/exact_sum.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace trireme {

void ExactSum::Add(double term) {
  if (!std::isfinite(term)) {
    words_[kBins] += term;
    return;
  }
  // term = ±mantissa * 2^(kLeastExponent + place).
  constexpr int kMantissaBits = 52;
  const auto bits = std::bit_cast<uint64_t>(term);
  const int exponent = static_cast<int>(bits >> kMantissaBits & 0x7ff);
  unsigned __int128 mantissa = bits & ((uint64_t{1} << kMantissaBits) - 1);
  if (exponent > 0) mantissa |= uint64_t{1} << kMantissaBits;
  const int place = std::max(exponent, 1) - 1;
  const double sign = std::signbit(term) ? -1 : 1;
  int bin = place / kBits;
  for (mantissa <<= place % kBits; mantissa != 0; mantissa >>= kBits, ++bin) {
    const auto word = static_cast<uint32_t>(mantissa & ((1u << kBits) - 1));
    words_[bin] += sign * static_cast<double>(word);
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
