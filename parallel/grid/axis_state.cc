#include "parallel/grid/axis_state.h"

#include "fmt/format.h"

namespace trireme {

std::string AxisState::ToString() const {
  switch (kind) {
    case Kind::kInvariant:
      return "Invariant";
    case Kind::kReplicate:
      return "Replicate";
    case Kind::kShard:
      return fmt::format("Shard({})", dim);
    case Kind::kPartial:
      return "Partial";
  }
  return "";
}

std::string AxisStates::ToString() const {
  std::string text;
  for (const Axis axis : kAllAxes) {
    const AxisState& state = (*this)[axis];
    if (state == AxisState::Invariant()) continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", AxisName(axis),
                        state.ToString());
  }
  return text.empty() ? "Invariant on every axis" : text;
}

}  // namespace trireme
