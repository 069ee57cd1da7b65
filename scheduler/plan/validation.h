// What checking a plan and filling it in have in common, beside plan.h.

#ifndef TRIREME_SCHEDULER_PLAN_VALIDATION_H_
#define TRIREME_SCHEDULER_PLAN_VALIDATION_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "runtime/core/status.h"
#include "scheduler/plan/plan.h"
#include "scheduler/plan/plan.pb.h"

namespace trireme {

inline constexpr uint32_t kPlanVersion = 1;
inline constexpr uint64_t kMaxBucketBytes = uint64_t{1} << 40;

template <typename Found>
absl::Status PlanFieldError(std::string_view field, const Found& found,
                            std::string_view expected) {
  return InvalidArgument("plan.{}: found {}, expected {}", field, found,
                         expected);
}

using NamedAxis = std::pair<std::string_view, uint32_t>;

std::array<NamedAxis, 5> AxesOf(const Plan::Grid& grid);

// "a divisor of 8, the global batch of 32 over dp 4".
std::string DivisorOfBatch(const Plan::Grid& grid, int64_t global_batch);

// What the rest of a plan is filled in from, one after the other.
absl::Status ValidateContext(const PlanContext& context);
absl::Status ValidateGrid(const Plan& plan, const PlanContext& context);
absl::Status ValidateSchedule(const Plan& plan);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PLAN_VALIDATION_H_
