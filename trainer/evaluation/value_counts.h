// How many of many values lie where, in bins that need not know them: two for
// each power of two and sign from 2^-30 to 2^30, and one around zero.

#ifndef TRIREME_TRAINER_EVALUATION_VALUE_COUNTS_H_
#define TRIREME_TRAINER_EVALUATION_VALUE_COUNTS_H_

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "runtime/telemetry/tensorboard.h"

namespace trireme {

class ValueCounts {
 public:
  // What is no number is not counted; what is beyond the outermost bins is, in
  // these. Of negative values a bin has its upper end, not its lower one.
  void Add(std::span<const float> values);
  void Add(std::span<const double> values);
  void Add(int bin, int64_t count) { counts_.at(bin) += count; }

  // Of the bins that have any, by number, from the lowest values up.
  std::map<int, int64_t> NotEmpty() const;
  // From the lowest that has any to the highest, none left out.
  std::vector<HistogramBin> Bins() const;

  static constexpr int kNumBins = 241;

 private:
  void Count(float value);

  std::array<int64_t, kNumBins> counts_{};
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_EVALUATION_VALUE_COUNTS_H_
