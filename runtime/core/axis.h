// The axes of the process grid, in the default order (leftmost varies
// fastest). "Axis" always means one of these; "dim" means a tensor's dim.

#ifndef TRIREME_RUNTIME_CORE_AXIS_H_
#define TRIREME_RUNTIME_CORE_AXIS_H_

#include <array>
#include <ostream>
#include <string_view>

namespace trireme {

enum class Axis { kTensor, kContext, kExpert, kData, kPipeline };

inline constexpr int kNumAxes = 5;
inline constexpr std::array<Axis, kNumAxes> kAllAxes = {
    Axis::kTensor, Axis::kContext, Axis::kExpert, Axis::kData, Axis::kPipeline};

// A set of axes.
class AxisSet {
 public:
  bool contains(Axis axis) const { return bits_[static_cast<int>(axis)]; }
  void insert(Axis axis) { bits_[static_cast<int>(axis)] = true; }
  void erase(Axis axis) { bits_[static_cast<int>(axis)] = false; }
  bool empty() const { return *this == AxisSet(); }
  friend bool operator==(const AxisSet&, const AxisSet&) = default;
  // Any total order, for maps.
  friend bool operator<(const AxisSet& a, const AxisSet& b) {
    return a.bits_ < b.bits_;
  }

 private:
  std::array<bool, kNumAxes> bits_{};
};

// "tp", "cp", "ep", "dp", "pp".
constexpr std::string_view AxisName(Axis axis) {
  constexpr std::array<std::string_view, kNumAxes> kNames = {"tp", "cp", "ep",
                                                             "dp", "pp"};
  return kNames[static_cast<int>(axis)];
}

inline std::ostream& operator<<(std::ostream& out, Axis axis) {
  return out << AxisName(axis);
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CORE_AXIS_H_
