// What a Cluster's fields may hold, and how what they may not is told.

#ifndef TRIREME_SCHEDULER_CLUSTER_FIELDS_H_
#define TRIREME_SCHEDULER_CLUSTER_FIELDS_H_

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "fmt/format.h"
#include "runtime/core/check_range.h"
#include "runtime/core/status.h"

namespace trireme {

inline constexpr int kMaxNodes = 4096;
inline constexpr uint64_t kMaxDevicesPerNode = 1024;
// What products achieve of the peak where nothing is said of it.
inline constexpr double kDefaultGemmEfficiency = 0.7;

// "cluster.nodes[3].count: found 0, expected 1 to 1024".
template <typename Found>
absl::Status FieldError(std::string_view field, const Found& found,
                        std::string_view expected) {
  return InvalidArgument("cluster.{}: found {}, expected {}", field, found,
                         expected);
}

// The same of a number that is to be neither below `low` nor above `high`.
template <typename T, typename Low, typename High>
absl::Status CheckField(std::string_view field, T found, Low low, High high) {
  return CheckRange(fmt::format("cluster.{}", field), found, low, high);
}

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_CLUSTER_FIELDS_H_
