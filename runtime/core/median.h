// The middle of some measured values.

#ifndef TRIREME_RUNTIME_CORE_MEDIAN_H_
#define TRIREME_RUNTIME_CORE_MEDIAN_H_

#include <algorithm>
#include <cstdint>
#include <vector>

namespace trireme {

// The upper one of two middles; 0 of none.
inline double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CORE_MEDIAN_H_
