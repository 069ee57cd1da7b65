#include "tools/size_option.h"

#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr int64_t kMostSide = 1 << 14;

}  // namespace

absl::StatusOr<PictureSize> ParsePictureSize(const std::string& option,
                                             const std::string& text) {
  const std::vector<std::string> sides = absl::StrSplit(text, 'x');
  PictureSize size;
  const auto is_side = [](const std::string& side, int64_t& value) {
    return absl::SimpleAtoi(side, &value) && value >= 1 && value <= kMostSide;
  };
  if (sides.size() == 2 && is_side(sides[0], size.height) &&
      is_side(sides[1], size.width)) {
    return size;
  }
  return InvalidArgument(
      "--{}: found '{}', expected HEIGHTxWIDTH, sides of 1 to {}", option, text,
      kMostSide);
}

}  // namespace trireme
