#include "scheduler/cluster/cluster.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string_view>
#include <tuple>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "runtime/core/status.h"
#include "scheduler/cluster/fields.h"
#include "scheduler/cluster/likeness.h"

namespace trireme {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kDefaultHostMemoryRate = 50e9;
constexpr double kDefaultDriveRate = 2e9;
constexpr uint64_t kMaxRanks = 1 << 20;
constexpr uint64_t kMaxMemoryBytes = uint64_t{1} << 50;
constexpr uint64_t kMaxDriveBytes = uint64_t{1} << 60;

absl::Status CheckPositive(std::string_view field, double value) {
  if (value > 0 && std::isfinite(value)) return absl::OkStatus();
  return FieldError(field, value, "a positive number");
}

absl::Status CheckNotNegative(std::string_view field, double value) {
  if (value >= 0 && std::isfinite(value)) return absl::OkStatus();
  return FieldError(field, value, "a number of at least 0");
}

absl::StatusOr<ClusterLink> ResolveLink(std::string_view field,
                                        const Cluster::Link& link) {
  RETURN_IF_ERROR(
      CheckNotNegative(fmt::format("{}.latency_s", field), link.latency_s()));
  RETURN_IF_ERROR(
      CheckPositive(fmt::format("{}.bytes_per_s", field), link.bytes_per_s()));
  RETURN_IF_ERROR(CheckNotNegative(fmt::format("{}.shared_bytes_per_s", field),
                                   link.shared_bytes_per_s()));
  return ClusterLink{.latency_s = link.latency_s(),
                     .bytes_per_s = link.bytes_per_s(),
                     .shared_bytes_per_s = link.shared_bytes_per_s() > 0
                                               ? link.shared_bytes_per_s()
                                               : kInfinity};
}

absl::StatusOr<std::vector<RateShare>> ResolveShares(
    const std::string& field,
    const google::protobuf::RepeatedPtrField<Cluster::Device::RateShare>&
        shares) {
  std::vector<RateShare> resolved;
  for (int i = 0; i < shares.size(); ++i) {
    const std::string entry = fmt::format("{}[{}]", field, i);
    const double least = resolved.empty() ? 0 : resolved.back().flops;
    if (!(shares[i].flops() > least) || !std::isfinite(shares[i].flops())) {
      return FieldError(entry + ".flops", shares[i].flops(),
                        fmt::format("more than {}", least));
    }
    if (!(shares[i].share() > 0 && shares[i].share() <= 1)) {
      return FieldError(entry + ".share", shares[i].share(),
                        "more than 0, at most 1");
    }
    resolved.push_back({shares[i].flops(), shares[i].share()});
  }
  return resolved;
}

absl::StatusOr<ClusterDevice> ResolveDevice(std::string_view field,
                                            const Cluster::Device& device) {
  auto name = [&](std::string_view part) {
    return fmt::format("{}.{}", field, part);
  };
  for (const auto& [part, rate] :
       {std::pair("peak_bf16_flops", device.peak_bf16_flops()),
        std::pair("peak_fp32_flops", device.peak_fp32_flops()),
        std::pair("memory_bytes_per_s", device.memory_bytes_per_s())}) {
    RETURN_IF_ERROR(CheckPositive(name(part), rate));
  }
  for (const auto& [part, figure] :
       {std::pair("achieved_bf16_flops", device.achieved_bf16_flops()),
        std::pair("achieved_fp32_flops", device.achieved_fp32_flops()),
        std::pair("peak_fp64_flops", device.peak_fp64_flops()),
        std::pair("achieved_fp64_flops", device.achieved_fp64_flops()),
        std::pair("peak_fp8_flops", device.peak_fp8_flops()),
        std::pair("achieved_fp8_flops", device.achieved_fp8_flops()),
        std::pair("peak_tf32_flops", device.peak_tf32_flops()),
        std::pair("achieved_tf32_flops", device.achieved_tf32_flops()),
        std::pair("to_device_bytes_per_s", device.to_device_bytes_per_s()),
        std::pair("to_host_bytes_per_s", device.to_host_bytes_per_s()),
        std::pair("launch_s", device.launch_s()),
        std::pair("spread", device.spread())}) {
    RETURN_IF_ERROR(CheckNotNegative(name(part), figure));
  }
  RETURN_IF_ERROR(CheckField(name("communicator_bytes"),
                             device.communicator_bytes(), 0, kMaxMemoryBytes));
  RETURN_IF_ERROR(CheckField(name("memory_bytes"), device.memory_bytes(), 1,
                             kMaxMemoryBytes));
  if (device.reserved_bytes() >= device.memory_bytes()) {
    return FieldError(
        name("reserved_bytes"), device.reserved_bytes(),
        fmt::format("less than memory_bytes, {}", device.memory_bytes()));
  }
  for (const auto& [part, achieved, peak] :
       {std::tuple("achieved_bf16_flops", device.achieved_bf16_flops(),
                   device.peak_bf16_flops()),
        std::tuple("achieved_fp32_flops", device.achieved_fp32_flops(),
                   device.peak_fp32_flops()),
        std::tuple("achieved_tf32_flops", device.achieved_tf32_flops(),
                   device.peak_tf32_flops())}) {
    if (achieved <= peak) continue;
    return FieldError(name(part), achieved,
                      fmt::format("at most the peak, {}", peak));
  }
  for (const auto& [part, factor] :
       {std::pair("compute_beside_communication",
                  device.compute_beside_communication()),
        std::pair("compute_beside_copies", device.compute_beside_copies())}) {
    if (factor == 0 || (factor >= 1 && std::isfinite(factor))) continue;
    return FieldError(name(part), factor, "a number of at least 1");
  }
  ASSIGN_OR_RETURN(
      const std::vector<RateShare> product_shares,
      ResolveShares(name("product_shares"), device.product_shares()));
  ASSIGN_OR_RETURN(
      const std::vector<RateShare> attention_shares,
      ResolveShares(name("attention_shares"), device.attention_shares()));
  auto achieved = [](double value, double peak) {
    return value > 0 ? value : kDefaultGemmEfficiency * peak;
  };
  const double achieved_bf16 =
      achieved(device.achieved_bf16_flops(), device.peak_bf16_flops());
  const double achieved_fp32 =
      achieved(device.achieved_fp32_flops(), device.peak_fp32_flops());
  return ClusterDevice{
      .name = device.name(),
      .peak_bf16_flops = device.peak_bf16_flops(),
      .peak_fp32_flops = device.peak_fp32_flops(),
      .achieved_bf16_flops = achieved_bf16,
      .achieved_fp32_flops = achieved_fp32,
      .peak_fp64_flops = device.peak_fp64_flops() > 0
                             ? device.peak_fp64_flops()
                             : device.peak_fp32_flops() / 2,
      .achieved_fp64_flops = device.achieved_fp64_flops() > 0
                                 ? device.achieved_fp64_flops()
                                 : achieved_fp32 / 2,
      .peak_fp8_flops = device.peak_fp8_flops() > 0 ? device.peak_fp8_flops()
                                                    : device.peak_bf16_flops(),
      .achieved_fp8_flops =
          device.achieved_fp8_flops() > 0 || device.peak_fp8_flops() > 0
              ? achieved(device.achieved_fp8_flops(), device.peak_fp8_flops())
              : achieved_bf16,
      .memory_bytes =
          static_cast<int64_t>(device.memory_bytes() - device.reserved_bytes()),
      .memory_bytes_per_s = device.memory_bytes_per_s(),
      .to_device_bytes_per_s = device.to_device_bytes_per_s(),
      .to_host_bytes_per_s = device.to_host_bytes_per_s(),
      .communicator_bytes = static_cast<int64_t>(device.communicator_bytes()),
      .launch_s = device.launch_s(),
      .product_shares = product_shares,
      .attention_shares =
          attention_shares.empty() ? product_shares : attention_shares,
      .compute_beside_communication =
          std::max(1.0, device.compute_beside_communication()),
      .compute_beside_copies = std::max(1.0, device.compute_beside_copies())};
}

absl::Status ResolveCollectives(const Cluster& cluster, ClusterModel& model) {
  absl::flat_hash_set<std::tuple<int, uint32_t, uint32_t>> given;
  for (int i = 0; i < cluster.collective_times_size(); ++i) {
    const Cluster::CollectiveTime& time = cluster.collective_times(i);
    const std::string field = fmt::format("collective_times[{}]", i);
    if (!Cluster::CollectiveTime::Kind_IsValid(time.kind())) {
      return FieldError(field + ".kind", static_cast<int>(time.kind()),
                        "ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER or ALL_TO_ALL");
    }
    if (time.nodes() < 1 ||
        time.nodes() > static_cast<uint32_t>(cluster.nodes_size())) {
      return FieldError(
          field + ".nodes", time.nodes(),
          fmt::format("1 to {}, the nodes", cluster.nodes_size()));
    }
    const uint32_t least = time.nodes() > 1 ? 1 : 2;
    RETURN_IF_ERROR(CheckField(field + ".ranks_per_node", time.ranks_per_node(),
                               least, kMaxDevicesPerNode));
    RETURN_IF_ERROR(CheckNotNegative(field + ".latency_s", time.latency_s()));
    RETURN_IF_ERROR(CheckPositive(field + ".bytes_per_s", time.bytes_per_s()));
    RETURN_IF_ERROR(
        CheckNotNegative(field + ".links_latency_s", time.links_latency_s()));
    RETURN_IF_ERROR(CheckNotNegative(field + ".links_bytes_per_s",
                                     time.links_bytes_per_s()));
    const std::tuple key(static_cast<int>(time.kind()), time.nodes(),
                         time.ranks_per_node());
    if (!given.insert(key).second) {
      return FieldError(
          field,
          fmt::format("{} of {} x {} ranks",
                      Cluster::CollectiveTime::Kind_Name(time.kind()),
                      time.nodes(), time.ranks_per_node()),
          "a kind and shape that no earlier entry has");
    }
    MeasuredCollective& entry = model.collective_times.emplace_back();
    entry.kind = static_cast<CollectiveKind>(time.kind());
    entry.nodes = static_cast<int32_t>(time.nodes());
    entry.ranks_per_node = static_cast<int32_t>(time.ranks_per_node());
    entry.seconds = {time.latency_s(), 1 / time.bytes_per_s()};
    if (time.links_bytes_per_s() > 0) {
      entry.by_links = {time.links_latency_s(), 1 / time.links_bytes_per_s()};
    }
  }
  return absl::OkStatus();
}

absl::Status ResolveIslands(const std::string& field, const Cluster::Node& node,
                            ClusterNode& resolved) {
  const uint32_t devices = node.island_devices();
  if (devices == 0) return absl::OkStatus();
  if (node.count() % devices != 0) {
    return FieldError(field + ".island_devices", devices,
                      fmt::format("a divisor of count, {}", node.count()));
  }
  if (devices == 1) return absl::OkStatus();
  resolved.island_devices = static_cast<int32_t>(devices);
  ASSIGN_OR_RETURN(resolved.island_link,
                   ResolveLink(field + ".island_link", node.island_link()));
  return absl::OkStatus();
}

absl::Status ResolveNodes(const Cluster& cluster, ClusterModel& model) {
  absl::flat_hash_map<std::string, int32_t> device_of_name;
  for (int i = 0; i < cluster.devices_size(); ++i) {
    const std::string field = fmt::format("devices[{}]", i);
    ASSIGN_OR_RETURN(ClusterDevice device,
                     ResolveDevice(field, cluster.devices(i)));
    if (!device_of_name.try_emplace(device.name, i).second) {
      return FieldError(field + ".name", device.name,
                        "a name that no earlier device has");
    }
    model.devices.push_back(std::move(device));
  }
  if (cluster.nodes_size() < 1 || cluster.nodes_size() > kMaxNodes) {
    return FieldError("nodes", fmt::format("{} nodes", cluster.nodes_size()),
                      fmt::format("1 to {}", kMaxNodes));
  }
  absl::flat_hash_set<std::string> names;
  for (int i = 0; i < cluster.nodes_size(); ++i) {
    const Cluster::Node& node = cluster.nodes(i);
    const std::string field = fmt::format("nodes[{}]", i);
    if (!node.name().empty() && !names.insert(node.name()).second) {
      return FieldError(field + ".name", node.name(),
                        "a name that no earlier node has");
    }
    const auto device = device_of_name.find(node.device());
    if (device == device_of_name.end()) {
      return FieldError(field + ".device", fmt::format("\"{}\"", node.device()),
                        "the name of an entry of devices");
    }
    if (node.count() < 1 || node.count() > kMaxDevicesPerNode ||
        model.node_of_rank.size() + node.count() > kMaxRanks) {
      return FieldError(field + ".count", node.count(),
                        fmt::format("1 to {}, and at most {} over all nodes",
                                    kMaxDevicesPerNode, kMaxRanks));
    }
    for (const auto& [part, figure] :
         {std::pair("slowdown", node.slowdown()),
          std::pair("card_bytes_per_s", node.card_bytes_per_s()),
          std::pair("host_memory_bytes_per_s", node.host_memory_bytes_per_s()),
          std::pair("drive_bytes_per_s", node.drive_bytes_per_s())}) {
      RETURN_IF_ERROR(
          CheckNotNegative(fmt::format("{}.{}", field, part), figure));
    }
    RETURN_IF_ERROR(CheckField(field + ".host_memory_bytes",
                               node.host_memory_bytes(), 0, kMaxMemoryBytes));
    RETURN_IF_ERROR(CheckField(field + ".drive_free_bytes",
                               node.drive_free_bytes(), 0, kMaxDriveBytes));
    if (!node.drive_folder().empty() && node.drive_folder().front() != '/') {
      return FieldError(field + ".drive_folder",
                        fmt::format("'{}'", node.drive_folder()),
                        "the absolute path of a folder on the drive");
    }
    ClusterNode resolved = {
        .name = node.name().empty() ? fmt::format("node{}", i) : node.name(),
        .device = device->second,
        .count = static_cast<int32_t>(node.count()),
        .first_rank = static_cast<int32_t>(model.node_of_rank.size()),
        .slowdown = node.slowdown() > 0 ? node.slowdown() : 1.0,
        .card_bytes_per_s =
            node.card_bytes_per_s() > 0 ? node.card_bytes_per_s() : kInfinity,
        .host_memory_bytes_per_s = node.host_memory_bytes_per_s() > 0
                                       ? node.host_memory_bytes_per_s()
                                       : kDefaultHostMemoryRate,
        .host_memory_bytes = static_cast<int64_t>(node.host_memory_bytes()),
        .drive_bytes_per_s = node.drive_bytes_per_s() > 0
                                 ? node.drive_bytes_per_s()
                                 : kDefaultDriveRate,
        .drive_folder = node.drive_folder(),
        .drive_free_bytes = static_cast<int64_t>(node.drive_free_bytes())};
    if (node.count() > 1) {
      ASSIGN_OR_RETURN(resolved.link,
                       ResolveLink(field + ".link", node.link()));
    }
    RETURN_IF_ERROR(ResolveIslands(field, node, resolved));
    model.node_of_rank.insert(model.node_of_rank.end(), node.count(), i);
    model.nodes.push_back(std::move(resolved));
  }
  return absl::OkStatus();
}

absl::Status CheckModelTimes(const Cluster& cluster, ClusterModel& model) {
  for (int i = 0; i < cluster.model_times_size(); ++i) {
    const Cluster::ModelTimes& times = cluster.model_times(i);
    constexpr std::array<std::string_view, 4> kDtypes = {"bf16", "fp16", "fp32",
                                                         "fp64"};
    if (std::find(kDtypes.begin(), kDtypes.end(), times.dtype()) ==
        kDtypes.end()) {
      return FieldError(fmt::format("model_times[{}].dtype", i), times.dtype(),
                        fmt::format("one of {}", fmt::join(kDtypes, ", ")));
    }
    for (int j = 0; j < times.pieces_size(); ++j) {
      const Cluster::PieceTime& piece = times.pieces(j);
      const std::string field = fmt::format("model_times[{}].pieces[{}]", i, j);
      const bool known =
          std::any_of(model.devices.begin(), model.devices.end(),
                      [&](const auto& d) { return d.name == piece.device(); });
      if (!known) {
        return FieldError(field + ".device",
                          fmt::format("\"{}\"", piece.device()),
                          "the name of an entry of devices");
      }
      for (const auto& [name, parts] :
           {std::pair("tp", piece.tp()), std::pair("cp", piece.cp()),
            std::pair("microbatch_size", piece.microbatch_size())}) {
        RETURN_IF_ERROR(
            CheckField(fmt::format("{}.{}", field, name), parts, 1, kMaxRanks));
      }
      RETURN_IF_ERROR(CheckPositive(field + ".forward_s", piece.forward_s()));
      RETURN_IF_ERROR(CheckPositive(field + ".backward_s", piece.backward_s()));
      if (!(piece.backward_weight_s() >= 0 &&
            piece.backward_weight_s() <= piece.backward_s())) {
        return FieldError(
            field + ".backward_weight_s", piece.backward_weight_s(),
            fmt::format("0 to the whole backward, {}", piece.backward_s()));
      }
    }
    model.model_times.push_back(times);
  }
  return absl::OkStatus();
}

absl::Status LinkRacks(const Cluster& cluster, ClusterModel& model) {
  const bool any =
      std::any_of(cluster.nodes().begin(), cluster.nodes().end(),
                  [](const auto& node) { return !node.rack().empty(); });
  if (!any) return absl::OkStatus();
  ASSIGN_OR_RETURN(const ClusterLink link,
                   ResolveLink("rack_link", cluster.rack_link()));
  for (int from = 0; from < cluster.nodes_size(); ++from) {
    const std::string& rack = cluster.nodes(from).rack();
    for (int to = 0; to < cluster.nodes_size(); ++to) {
      if (from == to || rack.empty() || rack != cluster.nodes(to).rack()) {
        continue;
      }
      model.node_links[static_cast<size_t>(from) * model.nodes.size() +
                       static_cast<size_t>(to)] = link;
    }
  }
  return absl::OkStatus();
}

double ShareAt(const std::vector<RateShare>& shares, double flops) {
  if (shares.empty()) return 1;
  const auto above = std::upper_bound(
      shares.begin(), shares.end(), flops,
      [](double value, const RateShare& point) { return value < point.flops; });
  if (above == shares.begin()) return shares.front().share;
  if (above == shares.end()) return shares.back().share;
  const RateShare& a = *(above - 1);
  const double part =
      std::log(flops / a.flops) / std::log(above->flops / a.flops);
  return a.share * std::pow(above->share / a.share, part);
}

}  // namespace

double ClusterDevice::PeakFlops(int64_t element_bytes) const {
  if (element_bytes == 8) return peak_fp64_flops;
  if (element_bytes == 1) return peak_fp8_flops;
  return element_bytes == 4 ? peak_fp32_flops : peak_bf16_flops;
}

double ClusterDevice::AchievedFlops(int64_t element_bytes) const {
  if (element_bytes == 8) return achieved_fp64_flops;
  if (element_bytes == 1) return achieved_fp8_flops;
  return element_bytes == 4 ? achieved_fp32_flops : achieved_bf16_flops;
}

double ClusterDevice::ProductSeconds(double flops,
                                     int64_t element_bytes) const {
  if (flops == 0) return 0;
  return std::max(launch_s, flops / AchievedFlops(element_bytes) /
                                ShareAt(product_shares, flops));
}

double ClusterDevice::AttentionSeconds(double flops,
                                       int64_t element_bytes) const {
  if (flops == 0) return 0;
  return std::max(launch_s, flops / AchievedFlops(element_bytes) /
                                ShareAt(attention_shares, flops));
}

double ClusterDevice::ElementwiseSeconds(double bytes) const {
  return std::max(launch_s, bytes / memory_bytes_per_s);
}

double ClusterLink::BytesPerSecond(int64_t flows) const {
  return std::min(bytes_per_s, shared_bytes_per_s / static_cast<double>(flows));
}

double ClusterModel::BytesPerSecond(int32_t from, int32_t to,
                                    int64_t flows) const {
  return std::min(LinkBetweenNodes(from, to).BytesPerSecond(flows),
                  nodes[from].card_bytes_per_s / static_cast<double>(flows));
}

bool ClusterModel::InOneIsland(int32_t rank, int32_t other) const {
  const ClusterNode& node = nodes[node_of_rank[rank]];
  return node.island_devices > 0 && node_of_rank[rank] == node_of_rank[other] &&
         (rank - node.first_rank) / node.island_devices ==
             (other - node.first_rank) / node.island_devices;
}

absl::StatusOr<ClusterModel> ResolveCluster(const Cluster& cluster) {
  ClusterModel model;
  model.direct_collectives = cluster.collectives() == Cluster::DIRECT;
  RETURN_IF_ERROR(ResolveCollectives(cluster, model));
  RETURN_IF_ERROR(ResolveNodes(cluster, model));
  RETURN_IF_ERROR(CheckModelTimes(cluster, model));
  const auto nodes = static_cast<size_t>(model.num_nodes());
  ClusterLink default_link;
  if (cluster.has_default_link()) {
    ASSIGN_OR_RETURN(default_link,
                     ResolveLink("default_link", cluster.default_link()));
  }
  model.node_links.assign(nodes * nodes, default_link);
  RETURN_IF_ERROR(LinkRacks(cluster, model));
  absl::flat_hash_set<size_t> given;
  for (int i = 0; i < cluster.links_size(); ++i) {
    const Cluster::NodeLink& link = cluster.links(i);
    const std::string field = fmt::format("links[{}]", i);
    if (link.from() >= nodes || link.to() >= nodes ||
        link.from() == link.to()) {
      return FieldError(field, fmt::format("{} to {}", link.from(), link.to()),
                        fmt::format("two different nodes below {}", nodes));
    }
    const size_t at = link.from() * nodes + link.to();
    if (!given.insert(at).second) {
      return FieldError(field, fmt::format("{} to {}", link.from(), link.to()),
                        "a pair that no earlier entry names");
    }
    ASSIGN_OR_RETURN(model.node_links[at],
                     ResolveLink(field + ".link", link.link()));
  }
  if (!cluster.has_default_link() && given.size() < nodes * (nodes - 1)) {
    return FieldError("default_link", "none",
                      fmt::format("one, as links gives only {} of {} pairs",
                                  given.size(), nodes * (nodes - 1)));
  }
  UnifyAlike(cluster, model);
  for (int32_t from = 0; from < model.num_nodes(); ++from) {
    for (int32_t to = 0; to < model.num_nodes(); ++to) {
      if (from == to && model.nodes[from].count == 1) continue;
      model.latency_s =
          std::max(model.latency_s, model.LinkBetweenNodes(from, to).latency_s);
    }
  }
  const auto shared = [](double bytes_per_s) {
    return std::isfinite(bytes_per_s);
  };
  model.shares_network =
      std::any_of(model.nodes.begin(), model.nodes.end(),
                  [&](const auto& n) { return shared(n.card_bytes_per_s); }) ||
      std::any_of(model.node_links.begin(), model.node_links.end(),
                  [&](const auto& l) { return shared(l.shared_bytes_per_s); });
  return model;
}

bool NodesAreAlike(const ClusterModel& cluster, int32_t a, int32_t b) {
  const ClusterNode& first = cluster.nodes[a];
  const ClusterNode& second = cluster.nodes[b];
  if (first.device != second.device || first.count != second.count ||
      first.link != second.link || first.slowdown != second.slowdown ||
      first.island_devices != second.island_devices ||
      first.island_link != second.island_link ||
      first.card_bytes_per_s != second.card_bytes_per_s ||
      first.host_memory_bytes_per_s != second.host_memory_bytes_per_s ||
      first.host_memory_bytes != second.host_memory_bytes ||
      first.drive_bytes_per_s != second.drive_bytes_per_s ||
      first.drive_folder != second.drive_folder ||
      first.drive_free_bytes != second.drive_free_bytes) {
    return false;
  }
  auto link = [&](int32_t from, int32_t to) -> const ClusterLink& {
    return cluster.LinkBetweenNodes(from, to);
  };
  if (a == b) return true;
  if (link(a, b) != link(b, a)) return false;
  for (int32_t other = 0; other < cluster.num_nodes(); ++other) {
    if (other == a || other == b) continue;
    if (link(a, other) != link(b, other)) return false;
    if (link(other, a) != link(other, b)) return false;
  }
  return true;
}

}  // namespace trireme
