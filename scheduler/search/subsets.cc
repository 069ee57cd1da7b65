#include "scheduler/search/subsets.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "fmt/format.h"
#include "runtime/core/status.h"
#include "scheduler/cluster/what_if.h"

namespace trireme {
namespace {

// Clusters of more nodes are not tried at every size.
constexpr int32_t kTriedAtEverySize = 8;
// Larger ones are searched again for a few sizes only.
constexpr int64_t kSearchedOften = 256;
// Of what the search among all devices may take.
constexpr int kBudgetShare = 8;
constexpr size_t kMostShown = 3;

// Nodes without a name go by their number.
std::string NameOf(const Cluster& cluster, int32_t node) {
  const std::string& name = cluster.nodes(node).name();
  return name.empty() ? fmt::format("{}", node) : name;
}

double ComputeRate(const ClusterModel& cluster, int32_t node,
                   int64_t element_bytes) {
  return cluster.nodes[node].count *
         cluster.DeviceOfNode(node).AchievedFlops(element_bytes) /
         cluster.nodes[node].slowdown;
}

// The mean over all other nodes, each in its slower direction.
double LinkRate(const ClusterModel& cluster, int32_t node) {
  double sum = 0;
  for (int32_t other = 0; other < cluster.num_nodes(); ++other) {
    if (other == node) continue;
    sum += std::min(cluster.BytesPerSecond(node, other, 1),
                    cluster.BytesPerSecond(other, node, 1));
  }
  return sum;
}

std::vector<int32_t> FastestFirst(const std::vector<double>& rates) {
  std::vector<int32_t> nodes(rates.size());
  std::iota(nodes.begin(), nodes.end(), 0);
  std::stable_sort(nodes.begin(), nodes.end(),
                   [&](int32_t a, int32_t b) { return rates[a] > rates[b]; });
  return nodes;
}

// How many nodes to keep of `nodes`, fewer than all.
std::vector<int32_t> SizesToTry(const ClusterModel& cluster) {
  const int32_t nodes = cluster.num_nodes();
  std::vector<int32_t> sizes;
  if (nodes <= kTriedAtEverySize) {
    for (int32_t size = nodes - 1; size >= 1; --size) sizes.push_back(size);
    return sizes;
  }
  sizes = {nodes - 1, 1};
  if (cluster.num_ranks() > kSearchedOften) return sizes;
  int32_t power = 1;
  while (2 * power < nodes) power *= 2;
  for (const int32_t size : {nodes - 2, power, nodes / 2}) {
    if (std::find(sizes.begin(), sizes.end(), size) == sizes.end()) {
      sizes.push_back(size);
    }
  }
  return sizes;
}

DeviceSubset WholeNodes(const ClusterModel& cluster,
                        std::vector<int32_t> nodes) {
  std::sort(nodes.begin(), nodes.end());
  DeviceSubset subset;
  for (const int32_t node : nodes) {
    subset.push_back({node, cluster.nodes[node].count});
  }
  return subset;
}

// Those that have as many devices as most nodes have.
std::vector<int32_t> UsualNodes(const ClusterModel& cluster) {
  std::map<int32_t, std::vector<int32_t>> by_count;
  for (int32_t node = 0; node < cluster.num_nodes(); ++node) {
    by_count[cluster.nodes[node].count].push_back(node);
  }
  std::vector<int32_t> usual;
  for (const auto& [count, nodes] : by_count) {
    if (nodes.size() >= usual.size()) usual = nodes;
  }
  return usual;
}

int64_t DevicesOf(const DeviceSubset& subset) {
  return std::accumulate(
      subset.begin(), subset.end(), int64_t{0},
      [](int64_t sum, const NodeShare& share) { return sum + share.devices; });
}

}  // namespace

absl::StatusOr<DeviceSubset> ParseSubset(const Cluster& cluster,
                                         std::string_view text) {
  std::map<int32_t, int32_t> devices_of;
  const std::string whole(text);
  const std::vector<std::string> entries = absl::StrSplit(whole, ',');
  for (const std::string& entry : entries) {
    const size_t colon = entry.rfind(':');
    const std::string name = entry.substr(0, colon);
    int32_t index = 0;
    while (index < cluster.nodes_size() && NameOf(cluster, index) != name) {
      ++index;
    }
    if (index == cluster.nodes_size()) {
      return InvalidArgument(
          "--only: found '{}', expected names of the cluster's nodes as "
          "NAME or NAME:DEVICES, separated by commas",
          entry);
    }
    const auto most = static_cast<int32_t>(cluster.nodes(index).count());
    int32_t devices = most;
    if (colon != std::string::npos &&
        (!absl::SimpleAtoi(entry.substr(colon + 1), &devices) || devices < 1 ||
         devices > most)) {
      return InvalidArgument("--only: found '{}', expected 1 to {} devices",
                             entry, most);
    }
    if (!devices_of.emplace(index, devices).second) {
      return InvalidArgument("--only: found {} twice, expected it once", name);
    }
  }
  DeviceSubset subset;
  for (const auto& [node, devices] : devices_of) {
    subset.push_back({node, devices});
  }
  return subset;
}

std::string SubsetName(const Cluster& cluster, const DeviceSubset& subset) {
  std::string text;
  for (const NodeShare& share : subset) {
    const Cluster::Node& node = cluster.nodes(share.node);
    if (!text.empty()) text += ',';
    text += NameOf(cluster, share.node);
    if (share.devices < static_cast<int32_t>(node.count())) {
      text += fmt::format(":{}", share.devices);
    }
  }
  return text;
}

Cluster OnlyDevices(const Cluster& cluster, const DeviceSubset& subset) {
  Cluster only = cluster;
  std::vector<int32_t> kept;
  for (const NodeShare& share : subset) {
    only.mutable_nodes(share.node)
        ->set_count(static_cast<uint32_t>(share.devices));
    kept.push_back(share.node);
  }
  KeepNodes(kept, only);
  return only;
}

std::vector<DeviceSubset> SubsetsToTry(const ClusterModel& cluster,
                                       int64_t element_bytes) {
  std::vector<double> compute, links;
  for (int32_t node = 0; node < cluster.num_nodes(); ++node) {
    compute.push_back(ComputeRate(cluster, node, element_bytes));
    links.push_back(LinkRate(cluster, node));
  }
  std::vector<DeviceSubset> subsets;
  const auto add = [&](DeviceSubset subset) {
    if (subset.empty() || DevicesOf(subset) == cluster.num_ranks()) return;
    if (std::find(subsets.begin(), subsets.end(), subset) != subsets.end()) {
      return;
    }
    subsets.push_back(std::move(subset));
  };
  for (const std::vector<double>& rates : {compute, links}) {
    const std::vector<int32_t> order = FastestFirst(rates);
    for (const int32_t size : SizesToTry(cluster)) {
      add(WholeNodes(cluster, {order.begin(), order.begin() + size}));
    }
  }
  add(WholeNodes(cluster, UsualNodes(cluster)));
  add({{FastestFirst(compute).front(), 1}});
  return subsets;
}

absl::StatusOr<SubsetReport> FasterSubsets(const PlannerInput& input,
                                           double step_s) {
  ASSIGN_OR_RETURN(const ClusterModel cluster, ResolveCluster(input.cluster));
  PlannerInput part = input;
  part.options.best = 1;
  part.options.placed = 2;
  part.options.max_instructions /= kBudgetShare;
  part.options.max_placing_work /= kBudgetShare;
  part.options.exact.max_devices = 0;
  part.options.space.offload = OffloadSearch::kNever;
  part.options.step_to_beat_s = step_s;
  SubsetReport report;
  for (const DeviceSubset& subset :
       SubsetsToTry(cluster, input.model.element_bytes)) {
    part.cluster = OnlyDevices(input.cluster, subset);
    ++report.tried;
    const absl::StatusOr<PlanReport> plans = MakePlan(part);
    // Too small for the job, or of a number that does not divide it.
    if (absl::IsResourceExhausted(plans.status()) ||
        absl::IsNotFound(plans.status())) {
      continue;
    }
    RETURN_IF_ERROR(plans.status());
    const double found = plans->best.front().estimate.step_s;
    if (IsFaster(found, step_s)) report.faster.push_back({subset, found});
  }
  std::stable_sort(report.faster.begin(), report.faster.end(),
                   [](const SubsetStep& a, const SubsetStep& b) {
                     return a.step_s < b.step_s;
                   });
  return report;
}

std::string SubsetText(const PlannerInput& input, const SubsetReport& report,
                       double step_s) {
  if (report.tried == 0) return "";
  if (report.faster.empty()) {
    return fmt::format("No subset of the devices is faster ({} tried).\n",
                       report.tried);
  }
  std::string text;
  const size_t shown = std::min(kMostShown, report.faster.size());
  for (size_t i = 0; i < shown; ++i) {
    const auto& [subset, found] = report.faster[i];
    const std::string name = SubsetName(input.cluster, subset);
    text += fmt::format(
        "FASTER ON FEWER DEVICES: {} of them take {:.4g} s, {:.3g} times as "
        "fast as all (--only {} plans it)\n",
        DevicesOf(subset), found, step_s / found, name);
  }
  return text;
}

}  // namespace trireme
