// The clusters that known hardware makes.

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/cluster/fields.h"

namespace trireme {
namespace {

struct KnownDevice {
  std::string_view name;
  double bf16, fp32, fp8;  // TFLOP/s, dense; fp8 0: none
  double memory_gb, memory_gb_per_s;
  double link_gb_per_s;  // NVLink or PCIe, one direction
  double host_gb_per_s;  // PCIe, one direction
  // The host's share for each device; memory 0: machines differ.
  double host_memory_gb, host_memory_gb_per_s;
};

// Data sheets of the SXM modules: A100 80 GB (312 TFLOP/s, 2,039 GB/s, NVLink 3
// 600 GB/s both ways), H100 (989, 3,350, NVLink 4 900), H200 (989, 4,800, 900),
// B200 (2,250, 8,000, NVLink 5 1,800); FP8 1,979 TFLOP/s of H100 and H200,
// 4,500 of B200. TF32 has half of what bf16 has on all of them; fp32 is without
// it. Hosts: an eighth of the DGX of eight such devices (2 TB each; two
// processors with eight channels of DDR4-3200 for A100s, DDR5-4800 for H100s
// and H200s, DDR5-5600 for B200s). RTX 4090: bf16 and FP8 with sums in fp32,
// PCIe 4 and no NVLink, in a desktop with two channels of DDR5-5600.
constexpr std::array<KnownDevice, 5> kDevices = {{
    {"A100", 312, 19.5, 0, 80, 2039, 300, 32, 250, 51.2},
    {"H100", 989, 67, 1979, 80, 3350, 450, 64, 250, 76.8},
    {"H200", 989, 67, 1979, 141, 4800, 450, 64, 250, 76.8},
    {"B200", 2250, 80, 4500, 180, 8000, 900, 64, 250, 89.6},
    {"RTX4090", 165, 82.6, 330, 24, 1008, 32, 32, 0, 89.6},
}};

struct KnownNetwork {
  std::string_view name;
  double gb_per_s;  // one card, one direction
  bool shared;      // one card for the node
  double latency_s;
};

constexpr std::array<KnownNetwork, 6> kNetworks = {{
    {"hdr", 25, false, 5e-6},
    {"ndr", 50, false, 5e-6},
    {"xdr", 100, false, 5e-6},
    {"ethernet-25", 3.125, true, 3e-5},
    {"ethernet-100", 12.5, true, 3e-5},
    {"ethernet-400", 50, true, 2e-5},
}};

constexpr double kNvlinkLatency = 3e-6;
// Context, NCCL's and cuBLAS's own memory.
constexpr uint64_t kReservedBytes = uint64_t{2} << 30;

template <typename Table>
auto FindNamed(const Table& table, std::string_view name) {
  return std::find_if(table.begin(), table.end(),
                      [&](const auto& entry) { return entry.name == name; });
}

template <typename Table>
std::string Names(const Table& table) {
  std::vector<std::string> names;
  for (const auto& entry : table) names.emplace_back(entry.name);
  return fmt::format("one of {}", fmt::join(names, ", "));
}

}  // namespace

absl::StatusOr<Cluster> DescribeCluster(const ClusterPreset& preset) {
  const auto device = FindNamed(kDevices, preset.device);
  if (device == kDevices.end()) {
    return FieldError("device", preset.device, Names(kDevices));
  }
  const auto network = FindNamed(kNetworks, preset.network);
  if (network == kNetworks.end()) {
    return FieldError("network", preset.network, Names(kNetworks));
  }
  RETURN_IF_ERROR(CheckField("nodes", preset.nodes, 1, kMaxNodes));
  RETURN_IF_ERROR(CheckField("devices_per_node", preset.devices_per_node, 1,
                             kMaxDevicesPerNode));
  for (const double efficiency :
       {preset.gemm_efficiency, preset.memory_efficiency,
        preset.link_efficiency, preset.network_efficiency}) {
    if (!(efficiency > 0 && efficiency <= 1)) {
      return FieldError("efficiency", efficiency, "more than 0, at most 1");
    }
  }
  Cluster cluster;
  Cluster::Device& kind = *cluster.add_devices();
  kind.set_name(preset.device);
  kind.set_peak_bf16_flops(device->bf16 * 1e12);
  kind.set_peak_fp32_flops(device->fp32 * 1e12);
  kind.set_achieved_bf16_flops(preset.gemm_efficiency * device->bf16 * 1e12);
  kind.set_achieved_fp32_flops(preset.gemm_efficiency * device->fp32 * 1e12);
  kind.set_peak_tf32_flops(device->bf16 / 2 * 1e12);
  kind.set_achieved_tf32_flops(preset.gemm_efficiency * device->bf16 / 2 *
                               1e12);
  kind.set_peak_fp8_flops(device->fp8 * 1e12);
  kind.set_achieved_fp8_flops(preset.gemm_efficiency * device->fp8 * 1e12);
  kind.set_memory_bytes(static_cast<uint64_t>(device->memory_gb * 1e9));
  kind.set_memory_bytes_per_s(preset.memory_efficiency *
                              device->memory_gb_per_s * 1e9);
  const double host_link = preset.link_efficiency * device->host_gb_per_s * 1e9;
  kind.set_to_device_bytes_per_s(host_link);
  kind.set_to_host_bytes_per_s(host_link);
  kind.set_reserved_bytes(kReservedBytes);
  if (preset.launch_s < 0 || preset.ramp_s < 0) {
    return FieldError("launch_s and ramp_s", preset.launch_s, "at least 0");
  }
  kind.set_launch_s(preset.launch_s);
  if (preset.ramp_s > 0) {
    // Half of the rate is reached by what takes as long as the ramp.
    const double half = preset.ramp_s * kind.achieved_bf16_flops();
    for (const double times : {0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0}) {
      Cluster::Device::RateShare& point = *kind.add_product_shares();
      point.set_flops(half * times);
      point.set_share(times / (1 + times));
    }
  }
  for (int64_t i = 0; i < preset.nodes; ++i) {
    Cluster::Node& node = *cluster.add_nodes();
    node.set_name(fmt::format("node{}", i));
    node.set_device(preset.device);
    node.set_count(static_cast<uint32_t>(preset.devices_per_node));
    const auto count = static_cast<double>(preset.devices_per_node);
    node.set_host_memory_bytes_per_s(preset.memory_efficiency * count *
                                     device->host_memory_gb_per_s * 1e9);
    node.set_host_memory_bytes(
        static_cast<uint64_t>(count * device->host_memory_gb * 1e9));
    node.mutable_link()->set_latency_s(kNvlinkLatency);
    node.mutable_link()->set_bytes_per_s(preset.link_efficiency *
                                         device->link_gb_per_s * 1e9);
  }
  Cluster::Link& link = *cluster.mutable_default_link();
  const double bytes_per_s =
      preset.network_efficiency * network->gb_per_s * 1e9;
  link.set_latency_s(network->latency_s);
  link.set_bytes_per_s(bytes_per_s);
  if (network->shared) {
    for (Cluster::Node& node : *cluster.mutable_nodes()) {
      node.set_card_bytes_per_s(bytes_per_s);
    }
  }
  return cluster;
}

}  // namespace trireme
