#include "trainer/evaluation/routing_picture.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "fmt/format.h"
#include "models/image/heat_map.h"
#include "moe/moe_tokens.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Of a picture, all layers together.
constexpr int64_t kMostRows = 1024;

HeatMap MapOf(const std::string& layer, const std::vector<double>& routes,
              int64_t columns) {
  const int64_t experts = static_cast<int64_t>(routes.size()) / kRouteKinds;
  HeatMap map = {
      .name = layer,
      .columns = columns,
      .values = std::vector<double>(experts * columns,
                                    std::numeric_limits<double>::quiet_NaN())};
  for (int64_t column = 0; column < columns; ++column) {
    double all = 0;
    for (int64_t i = 0; i < experts; ++i) all += routes[column * experts + i];
    for (int64_t i = 0; all > 0 && i < experts; ++i) {
      map.values[i * columns + column] = routes[column * experts + i] / all;
    }
  }
  return map;
}

// "blocks.2.moe" before "blocks.10.moe".
bool InOrder(const std::string& a, const std::string& b) {
  return a.size() != b.size() ? a.size() < b.size() : a < b;
}

}  // namespace

absl::StatusOr<Image> DrawRouting(
    const std::map<std::string, std::vector<double>>& routes, bool by_time,
    int64_t step) {
  std::vector<std::string> layers;
  int64_t rows = 0;
  for (const auto& [layer, counts] : routes) {
    if (counts.empty() || counts.size() % kRouteKinds != 0) {
      return InvalidArgument(
          "layer \"{}\" has {} counts, expected {} for each "
          "expert",
          layer, counts.size(), kRouteKinds);
    }
    layers.push_back(layer);
    rows += static_cast<int64_t>(counts.size()) / kRouteKinds;
  }
  std::sort(layers.begin(), layers.end(), InOrder);
  const int64_t stride =
      std::max<int64_t>(1, (rows + kMostRows - 1) / kMostRows);
  std::vector<HeatMap> maps;
  for (size_t i = 0; i < layers.size(); i += stride) {
    maps.push_back(
        MapOf(layers[i], routes.at(layers[i]), by_time ? kRouteKinds : 1));
  }
  return DrawHeatMaps(
      maps, {.title = fmt::format("Routes of held-out samples, step {}", step),
             .row_label = "experts",
             .column_label = by_time ? "time (1 is noise)" : "all samples"});
}

}  // namespace trireme
