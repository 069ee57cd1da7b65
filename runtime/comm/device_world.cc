#include "runtime/comm/device_world.h"

#include <map>
#include <numeric>
#include <vector>

#include "fmt/format.h"
#include "runtime/comm/control.h"
#include "runtime/comm/host_staged.h"
#include "runtime/comm/nccl/nccl_world.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Why not all ranks can use NCCL; empty: they can. A collective: all ranks come
// to the same.
std::string Obstacle(Communicator& world, const ComputeDevice& device) {
  Control control(world);
  const std::vector<std::string> gpus =
      control.AllGather(device.gpu_id(), "GPUs of the ranks");
  std::map<std::string, size_t> owners;
  for (size_t rank = 0; rank < gpus.size(); ++rank) {
    if (gpus[rank].empty()) return fmt::format("rank {} has no GPU", rank);
    const auto [owner, is_new] = owners.try_emplace(gpus[rank], rank);
    if (!is_new) {
      return fmt::format("rank {} shares rank {}'s GPU", rank, owner->second);
    }
  }
  // A large library, which only those load that can use it.
  const absl::Status nccl =
      control.Agree(FindNcclVersion().status(), "NCCL of the ranks");
  return nccl.ok() ? "" : MessageOf(nccl);
}

}  // namespace

DeviceWorld MakeDeviceWorld(CommunicatorFactory& inner,
                            const ComputeDevice& device,
                            const HangWatch& watch) {
  if (inner.world_size() > 1) {
    std::vector<int> all(inner.world_size());
    std::iota(all.begin(), all.end(), 0);
    const std::string obstacle =
        Obstacle(*inner.Create(all, "devices"), device);
    if (obstacle.empty()) {
      return {MakeNcclWorld(inner, device.gpu(), watch), *FindNcclVersion()};
    }
    if (device.kind() != DeviceKind::kCpu) {
      return {std::make_unique<HostStagedWorld>(inner),
              fmt::format("the host's memory: {}", obstacle)};
    }
  }
  return {std::make_unique<HostStagedWorld>(inner), ""};
}

}  // namespace trireme
