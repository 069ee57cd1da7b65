#include "trainer/preflight/tuned_cluster.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <string_view>
#include <vector>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "runtime/comm/control.h"
#include "runtime/core/log.h"
#include "runtime/core/median.h"
#include "runtime/core/status.h"
#include "runtime/device/cuda/gpus.h"
#include "runtime/device/device.h"
#include "trainer/profile/link_profile.h"

namespace trireme {
namespace {

using TunedFor = Plan::Experts::TunedFor;

// Of links that are taken for the same. Short measurements on busy machines
// differ by a factor of two; what a table chooses by differs by more.
constexpr double kSameRate = 4;

constexpr LinkProfileOptions kShort = {
    .large_bytes = 1 << 20, .largest_bytes = 16 << 20, .repetitions = 3};
// Room for the messages that a rank has at once.
constexpr int64_t kProbeBytes = 64 << 20;

std::string ProcessorName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "cpu";
}

std::string DeviceName(const ComputeDevice& device) {
  if (device.kind() == DeviceKind::kCpu) return ProcessorName();
  const absl::StatusOr<std::vector<CudaGpu>> gpus = FindCudaGpus();
  CHECK(gpus.ok()) << gpus.status();
  return (*gpus)[device.gpu()].name;
}

absl::Status OtherCluster(std::string_view field, const std::string& found,
                          const std::string& expected) {
  return InvalidArgument(
      "plan.experts.tuned_for.{}: found {}, expected {}, which choices are "
      "measured for again by trireme tune",
      field, found, expected);
}

}  // namespace

TunedFor MeasureTunedCluster(const RankPlace& place,
                             CommunicatorFactory& factory) {
  std::vector<int> everyone(factory.world_size());
  std::iota(everyone.begin(), everyone.end(), 0);
  const std::unique_ptr<Communicator> world =
      factory.Create(everyone, "tuned cluster");
  Control control(*world);
  const std::vector<std::string> hosts =
      control.AllGather(place.host, "hosts of a tuned cluster");
  const std::vector<std::string> names =
      control.AllGather(DeviceName(place.device), "devices of a tuned cluster");
  std::vector<int> node_of(hosts.size(), 0);
  std::map<std::string, int64_t> ranks_of;
  for (size_t i = 0; i < hosts.size(); ++i) {
    if (i > 0) {
      node_of[i] = node_of[i - 1] + (hosts[i] != hosts[i - 1] ? 1 : 0);
    }
    ++ranks_of[hosts[i]];
  }
  const std::unique_ptr<Device> device = place.device.Make(kProbeBytes, {});
  const LinkMeasurements measured =
      MeasureLinks(kShort, *device, *world, node_of);
  TunedFor cluster;
  std::vector<double> within, between;
  for (const auto& [nodes, link] : measured.links) {
    (nodes.first == nodes.second ? within : between)
        .push_back(link.bytes_per_s);
  }
  cluster.set_machines(static_cast<uint32_t>(ranks_of.size()));
  for (const auto& [host, ranks] : ranks_of) {
    cluster.set_machine_ranks(
        std::max(cluster.machine_ranks(), static_cast<uint32_t>(ranks)));
  }
  cluster.set_device(
      fmt::format("{}", fmt::join(std::set(names.begin(), names.end()), ", ")));
  if (!within.empty()) cluster.set_within_bytes_per_s(Median(within));
  if (!between.empty()) cluster.set_between_bytes_per_s(Median(between));
  // Rank 0 alone knows the links.
  std::string text = cluster.SerializeAsString();
  control.Broadcast(text, "tuned cluster");
  CHECK(cluster.ParseFromString(text));
  return cluster;
}

absl::Status CheckTunedCluster(const TunedFor& tuned, const TunedFor& here) {
  if (tuned.machines() > 0 && tuned.machines() != here.machines()) {
    return OtherCluster("machines", fmt::format("{}", tuned.machines()),
                        fmt::format("{}", here.machines()));
  }
  if (tuned.machine_ranks() > 0 &&
      tuned.machine_ranks() != here.machine_ranks()) {
    return OtherCluster("machine_ranks",
                        fmt::format("{}", tuned.machine_ranks()),
                        fmt::format("{}", here.machine_ranks()));
  }
  if (!tuned.device().empty() && tuned.device() != here.device()) {
    return OtherCluster("device", fmt::format("'{}'", tuned.device()),
                        fmt::format("'{}'", here.device()));
  }
  const auto check = [](std::string_view field, double found, double now) {
    if (found <= 0 || now <= 0 ||
        std::max(found / now, now / found) <= kSameRate) {
      return absl::OkStatus();
    }
    return OtherCluster(field, fmt::format("{:.3g}", found),
                        fmt::format("about {:.3g} as measured here", now));
  };
  RETURN_IF_ERROR(check("within_bytes_per_s", tuned.within_bytes_per_s(),
                        here.within_bytes_per_s()));
  return check("between_bytes_per_s", tuned.between_bytes_per_s(),
               here.between_bytes_per_s());
}

}  // namespace trireme
