#include "tools/bench/published/skippipe_instance.h"

#include <algorithm>
#include <fstream>

#include "nlohmann/json.hpp"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

constexpr const char* kFields[] = {
    "activation_bytes_per_sample",
    "backward_over_forward",
    "city_links",
    "loss_over_forward",
    "microbatches_per_data_node",
    "node_city",
    "path_length",
    "published_cost_aware_paths",
    "published_makespan_s",
    "published_skippipe_paths",
    "samples_per_microbatch",
    "simulated_forward_s_per_microbatch",
    "simulator_gap_after_each_task_s",
    "slots_per_node",
    "stage_groups",
    "transfer_overhead_s",
    "transfer_s",
};

// {"0": 14, "14": 6}: the path 0, 14, 6.
NodePath ReadPath(const Json& successors) {
  std::vector<int32_t> from, to;
  for (const auto& [node, next] : successors.items()) {
    from.push_back(std::stoi(node));
    to.push_back(next.get<int32_t>());
  }
  NodePath path;
  for (const int32_t node : from) {
    if (std::count(to.begin(), to.end(), node) == 0) path = {node};
  }
  while (!path.empty() && path.size() <= from.size()) {
    const auto at = std::find(from.begin(), from.end(), path.back());
    if (at == from.end()) break;
    path.push_back(to[at - from.begin()]);
  }
  return path;
}

// Seconds between two cities, sites of one city being `same`.
void Mend(const Json& json, SkipInstance& instance,
          std::vector<std::vector<double>>& transfer_s) {
  const auto cities = json.at("node_city").get<std::vector<std::string>>();
  const double bytes = json.at("samples_per_microbatch").get<double>() *
                       json.at("activation_bytes_per_sample").get<double>();
  const double overhead = json.at("transfer_overhead_s").get<double>();
  transfer_s = instance.transfer_s;
  for (const Json& link : json.at("city_links").at("values")) {
    const auto a = link.at(0).get<std::string>();
    const auto b = link.at(1).get<std::string>();
    if (!(a == "NL" && b == "London")) continue;
    const double rate = link.at(3).get<double>() * 1024 * (1 << 30);
    const double seconds =
        link.at(2).get<double>() / 1000 + bytes / rate + overhead;
    for (size_t u = 0; u < cities.size(); ++u) {
      for (size_t v = 0; v < cities.size(); ++v) {
        if ((cities[u] == a && cities[v] == b) ||
            (cities[u] == b && cities[v] == a)) {
          transfer_s[u][v] = seconds;
        }
      }
    }
  }
}

PublishedInstance Convert(const Json& json) {
  PublishedInstance published;
  SkipInstance& instance = published.instance;
  instance.groups =
      json.at("stage_groups").get<std::vector<std::vector<int32_t>>>();
  instance.transfer_s = json.at("transfer_s")
                            .at("values")
                            .get<std::vector<std::vector<double>>>();
  instance.forward_s.assign(
      instance.transfer_s.size(),
      json.at("simulated_forward_s_per_microbatch").get<double>());
  instance.backward_over_forward =
      json.at("backward_over_forward").get<double>();
  instance.loss_over_forward = json.at("loss_over_forward").get<double>();
  instance.gap_s = json.at("simulator_gap_after_each_task_s").get<double>();
  instance.path_length = json.at("path_length").get<int32_t>();
  instance.microbatches_per_data_node =
      json.at("microbatches_per_data_node").get<int32_t>();
  instance.slots_per_node = json.at("slots_per_node").get<int32_t>();
  instance.max_visits_per_node = instance.microbatches_per_data_node;
  Mend(json, instance, published.mended_transfer_s);
  for (const Json& path : json.at("published_skippipe_paths")) {
    published.skippipe_paths.push_back(ReadPath(path));
  }
  for (const Json& path : json.at("published_cost_aware_paths")) {
    published.cost_aware_paths.push_back(path.get<NodePath>());
  }
  const Json& makespans = json.at("published_makespan_s");
  published.full_pipeline_s =
      makespans.at("full_pipeline_27_microbatches").get<double>();
  published.hop_count_s = makespans.at("skip_hop_count_paths").get<double>();
  published.cost_aware_s =
      makespans.at("cost_aware_without_collision_avoidance").get<double>();
  published.skippipe_s = makespans.at("skippipe").get<double>();
  return published;
}

}  // namespace

absl::StatusOr<PublishedInstance> ReadPublishedInstance(
    const std::string& file) {
  std::ifstream stream(file);
  if (!stream) return NotFound("{}: found no such file", file);
  const Json json = Json::parse(stream, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) {
    return InvalidArgument("{}: found text that is not JSON", file);
  }
  for (const char* field : kFields) {
    if (!json.contains(field)) {
      return InvalidArgument("{}: found no field {}, expected one", file,
                             field);
    }
  }
  PublishedInstance published = Convert(json);
  RETURN_IF_ERROR(WithContext(CheckInstance(published.instance), file));
  return published;
}

}  // namespace trireme
