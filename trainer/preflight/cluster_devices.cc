#include "trainer/preflight/cluster_devices.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "runtime/device/arena.h"
#include "scheduler/cluster/known_products.h"

namespace trireme {
namespace {

constexpr double kLeastShareOfMemory = 0.95;

std::string_view ProductOf(const RankDevice& rank) {
  return rank.product.empty() ? kProcessor : std::string_view(rank.product);
}

int DeviceOf(const Cluster& cluster, const Cluster::Node& node) {
  for (int i = 0; i < cluster.devices_size(); ++i) {
    if (cluster.devices(i).name() == node.device()) return i;
  }
  return -1;
}

// Of a processor without what a process needs beside its arena.
int64_t MemoryOf(const Cluster::Device& device) {
  const bool processor = device.name().starts_with(kProcessor);
  return static_cast<int64_t>(device.memory_bytes()) -
         (processor ? static_cast<int64_t>(device.reserved_bytes()) : 0);
}

}  // namespace

std::string DevicesText(const std::vector<RankDevice>& ranks) {
  std::map<std::string, std::set<std::string>> hosts_of;
  for (const RankDevice& rank : ranks) {
    hosts_of[fmt::format("{} x {}, {} each", rank.count, ProductOf(rank),
                         BytesText(rank.memory_bytes))]
        .insert(rank.host);
  }
  std::vector<std::string> kinds;
  for (const auto& [devices, hosts] : hosts_of) {
    kinds.push_back(fmt::format("{} {} with {}", hosts.size(),
                                hosts.size() == 1 ? "host" : "hosts", devices));
  }
  return fmt::format("{}", fmt::join(kinds, "; "));
}

Cluster DevicesOnly(const Cluster& cluster) {
  Cluster only;
  for (const Cluster::Device& device : cluster.devices()) {
    Cluster::Device& entry = *only.add_devices();
    entry.set_name(device.name());
    entry.set_memory_bytes(device.memory_bytes());
    entry.set_reserved_bytes(device.reserved_bytes());
  }
  for (const Cluster::Node& node : cluster.nodes()) {
    Cluster::Node& entry = *only.add_nodes();
    entry.set_name(node.name());
    entry.set_device(node.device());
    entry.set_count(node.count());
  }
  return only;
}

std::vector<std::string> CompareDevices(const Cluster& cluster,
                                        const std::vector<RankDevice>& ranks) {
  std::vector<std::string> differences;
  std::set<std::string> told;
  const auto tell = [&](const std::string& host, const std::string& field,
                        std::string_view found, std::string_view expected,
                        std::string_view remedy) {
    const std::string at = fmt::format("host {}: cluster.{}", host, field);
    if (!told.insert(at).second) return;
    differences.push_back(fmt::format("{}: found {}, expected {}; {}", at,
                                      found, expected, remedy));
  };
  size_t first = 0;
  for (int i = 0; i < cluster.nodes_size() && first < ranks.size(); ++i) {
    const Cluster::Node& node = cluster.nodes(i);
    const int device = DeviceOf(cluster, node);
    const size_t end = std::min(first + node.count(), ranks.size());
    for (size_t rank = first; rank < end; ++rank) {
      const RankDevice& found = ranks[rank];
      const bool processor = found.product.empty();
      if (!CanBe(node.device(), found.product)) {
        tell(found.host, fmt::format("nodes[{}].device", i), ProductOf(found),
             node.device(),
             "look at its driver (nvidia-smi) and at --device, or plan for "
             "what is there");
        continue;
      }
      // A launch may have fewer ranks than the cluster has devices.
      const auto count =
          static_cast<int64_t>(processor ? end - first : node.count());
      if (processor ? found.count != count : found.count < count) {
        tell(found.host, fmt::format("nodes[{}].count", i),
             fmt::to_string(found.count), fmt::to_string(count),
             processor ? "are two of its nodes one machine?"
                       : "look at nvidia-smi and CUDA_VISIBLE_DEVICES there, "
                         "or leave devices out (--only)");
      }
      const int64_t memory = device < 0 ? 0 : MemoryOf(cluster.devices(device));
      if (static_cast<double>(found.memory_bytes) <
          kLeastShareOfMemory * static_cast<double>(memory)) {
        tell(found.host, fmt::format("devices[{}].memory_bytes", device),
             BytesText(found.memory_bytes), BytesText(memory),
             "look at what limits it there, or plan for what is there");
      }
    }
    first = end;
  }
  return differences;
}

}  // namespace trireme
