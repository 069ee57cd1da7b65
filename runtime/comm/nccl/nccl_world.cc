#include "runtime/comm/nccl/nccl_world.h"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <optional>
#include <utility>

#include "fmt/format.h"
#include "runtime/comm/host_staged.h"
#include "runtime/comm/nccl/nccl_communicator.h"
#include "runtime/comm/nccl/nccl_library.h"
#include "runtime/comm/nccl/nccl_watch.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/device/cuda/cuda_status.h"

namespace trireme {
namespace {

class NcclWorld final : public CommunicatorFactory {
 public:
  NcclWorld(CommunicatorFactory& inner, int gpu, const HangWatch& watch)
      : staged_(inner), gpu_(gpu) {
    if (watch.registry != nullptr) watch_.emplace(watch);
  }

  int world_rank() const override { return staged_.world_rank(); }
  int world_size() const override { return staged_.world_size(); }
  using CommunicatorFactory::Create;
  std::unique_ptr<Communicator> Create(std::span<const int> ranks,
                                       std::string_view name,
                                       Progress progress) override {
    std::unique_ptr<Communicator> others =
        staged_.Create(ranks, name, progress);
    if (ranks.size() == 1) return others;
    CheckCuda(cudaSetDevice(gpu_));
    return std::make_unique<NcclCommunicator>(
        std::move(others), ranks, watch_.has_value() ? &*watch_ : nullptr);
  }

 private:
  HostStagedWorld staged_;
  const int gpu_;
  std::optional<NcclWatch> watch_;
};

}  // namespace

absl::StatusOr<std::string> FindNcclVersion() {
  RETURN_IF_ERROR(FindNccl());
  int version = 0;
  CHECK(ncclGetVersion(&version) == ncclSuccess);
  return fmt::format("NCCL {}.{}.{}", version / 10000, version / 100 % 100,
                     version % 100);
}

std::unique_ptr<CommunicatorFactory> MakeNcclWorld(CommunicatorFactory& inner,
                                                   int gpu,
                                                   const HangWatch& watch) {
  return std::make_unique<NcclWorld>(inner, gpu, watch);
}

}  // namespace trireme
