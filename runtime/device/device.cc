#include "runtime/device/device.h"

#include <algorithm>

#include "fmt/format.h"

namespace trireme {

std::string_view MemoryCategoryName(MemoryCategory category) {
  constexpr std::array<std::string_view, kNumMemoryCategories> kNames = {
      "parameters",  "gradients",     "optimizer",
      "activations", "communication", "workspace"};
  return kNames[static_cast<int>(category)];
}

std::string BytesText(int64_t bytes) {
  constexpr std::array<std::string_view, 5> kUnits = {"B", "KiB", "MiB", "GiB",
                                                      "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes)
                   : fmt::format("{:.{}f} {}", value, value < 10 ? 2 : 1,
                                 kUnits[unit]);
}

std::string MemoryText(const MemoryByCategory& bytes) {
  std::array<int, kNumMemoryCategories> order;
  for (int i = 0; i < kNumMemoryCategories; ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return bytes[a] > bytes[b]; });
  std::string text;
  for (int i : order) {
    if (bytes[i] == 0) continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ",
                        MemoryCategoryName(static_cast<MemoryCategory>(i)),
                        BytesText(bytes[i]));
  }
  return text.empty() ? "nothing" : text;
}

}  // namespace trireme
