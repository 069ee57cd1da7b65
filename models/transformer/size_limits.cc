#include "models/transformer/size_limits.h"

#include "runtime/core/status.h"

namespace trireme {

absl::Status CheckHeadWidth(std::string_view field, int64_t heads,
                            int64_t head_dim) {
  if (head_dim <= size_limits::kHeadDim) return absl::OkStatus();
  return InvalidArgument(
      "{}: found {} heads of {} channels, expected heads of at most {} "
      "channels",
      field, heads, head_dim, size_limits::kHeadDim);
}

}  // namespace trireme
