#include "trainer/sampling/route_shares.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <system_error>
#include <vector>

#include "absl/status/statusor.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "runtime/core/status.h"
#include "runtime/telemetry/metrics_log.h"
#include "trainer/run/run_folder.h"

namespace trireme {

std::string RouteSharesText(const std::string& run, int64_t steps) {
  const std::string path = RunFolder(run).metrics();
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return "";
  double least = std::numeric_limits<double>::infinity(), most = 0;
  int64_t counted = 0;
  const auto count = [&](const nlohmann::json& entry) {
    const auto layers = entry.find("expert_shares");
    if (layers == entry.end() || !layers->is_object()) return true;
    for (const nlohmann::json& shares : *layers) {
      for (const nlohmann::json& share : shares) {
        if (!share.is_number()) continue;
        least = std::min(least, share.get<double>());
        most = std::max(most, share.get<double>());
      }
    }
    return ++counted < steps;
  };
  const absl::Status read = ReadMetricsBackwards(path, count);
  if (!read.ok()) {
    return fmt::format("routes are not known: {}\n", MessageOf(read));
  }
  if (counted == 0 || least > most) return "";
  return fmt::format(
      "routes of the last {} steps: an expert has {:.0f} % to {:.0f} % of its "
      "layer's\n",
      counted, 100 * least, 100 * most);
}

}  // namespace trireme
