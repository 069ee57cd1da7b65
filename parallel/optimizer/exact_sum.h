// A sum of doubles that is the same, to the last bit, in whatever order and
// grouping its terms are added: each term is cut into integers of 24 bits at
// fixed places, and integers add exactly (after Demmel and Nguyen, "Parallel
// reproducible summation", 2015). So a norm does not depend on which rank
// holds which parameter.

#ifndef TRIREME_PARALLEL_OPTIMIZER_EXACT_SUM_H_
#define TRIREME_PARALLEL_OPTIMIZER_EXACT_SUM_H_

#include <array>
#include <span>

namespace trireme {

class ExactSum {
 public:
  // At most 2^29 terms in all. A term that is not finite makes the total so.
  void Add(double term);

  // What the sums of several ranks add up to element by element.
  std::span<double> words() { return words_; }
  std::span<const double> words() const { return words_; }

  double Total() const;

 private:
  static constexpr int kBits = 24;
  static constexpr int kLeastExponent = -1074;
  // Up to 2^1024; then what is not finite.
  static constexpr int kBins = (1024 - kLeastExponent + kBits - 1) / kBits;

  std::array<double, kBins + 1> words_{};
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_OPTIMIZER_EXACT_SUM_H_
