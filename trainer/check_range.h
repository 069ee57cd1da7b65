// That a number of a job lies where it makes sense.

#ifndef TRIREME_TRAINER_CHECK_RANGE_H_
#define TRIREME_TRAINER_CHECK_RANGE_H_

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "runtime/core/status.h"

namespace trireme {

// Error: InvalidArgument, "FIELD: found X, expected LOW to HIGH"; of NaN, too.
inline absl::Status CheckRange(std::string_view field, double found, double low,
                               double high) {
  if (found >= low && found <= high) return absl::OkStatus();
  return InvalidArgument("{}: found {}, expected {} to {}", field, found, low,
                         high);
}

// The same of numbers that double does not hold.
inline absl::Status CheckWhole(std::string_view field, uint64_t found,
                               uint64_t low, uint64_t high) {
  if (found >= low && found <= high) return absl::OkStatus();
  return InvalidArgument("{}: found {}, expected {} to {}", field, found, low,
                         high);
}

}  // namespace trireme

#endif  // TRIREME_TRAINER_CHECK_RANGE_H_
