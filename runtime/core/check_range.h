// That a number which a person chose lies where it makes sense.

#ifndef TRIREME_RUNTIME_CORE_CHECK_RANGE_H_
#define TRIREME_RUNTIME_CORE_CHECK_RANGE_H_

#include <concepts>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "runtime/core/status.h"

namespace trireme {

// That `found` is neither below `low` nor above `high`. A whole number has
// whole bounds and is compared exactly, of any width and sign; any other is
// compared as double, and NaN is in no range. `field` is the full name that a
// job, a plan or a command gives the number: model.dit.hidden, --steps.
//
// Error: InvalidArgument, "FIELD: found X, expected LOW to HIGH".
template <typename T, typename Low, typename High>
absl::Status CheckRange(std::string_view field, T found, Low low, High high) {
  bool inside = false;
  if constexpr (std::integral<T>) {
    static_assert(std::integral<Low> && std::integral<High>,
                  "a whole number has whole bounds");
    inside =
        std::cmp_greater_equal(found, low) && std::cmp_less_equal(found, high);
  } else {
    const double value = found;
    inside =
        value >= static_cast<double>(low) && value <= static_cast<double>(high);
  }
  if (inside) return absl::OkStatus();
  return InvalidArgument("{}: found {}, expected {} to {}", field, found, low,
                         high);
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CORE_CHECK_RANGE_H_
