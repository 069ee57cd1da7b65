// What a rank has beyond its chunks where its plan offloads the blocks: their
// home in the host's memory, the drive that its optimizer's states and its
// blocks lie on, and the buffers that blocks take turns in on the device and in
// the host's memory.

#ifndef TRIREME_TRAINER_RANK_RANK_OFFLOAD_H_
#define TRIREME_TRAINER_RANK_RANK_OFFLOAD_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "offload/device_buffers.h"
#include "offload/host_buffers.h"
#include "offload/offloaded_units.h"
#include "offload/unit_window.h"
#include "parallel/executor/executor.h"
#include "parallel/parameters/trained_parameters.h"
#include "parallel/sharding/gradient_reducer.h"
#include "parallel/sharding/parameter_buckets.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/cuda/gpus.h"
#include "runtime/device/nvme/nvme_device.h"
#include "scheduler/plan/plan.pb.h"
#include "scheduler/program/program.h"
#include "trainer/rank/local_model.h"

namespace trireme {

class RankOffload {
 public:
  // `plan` has offload, of a model of `num_blocks` blocks. What trains is at
  // home as well but for adapters, which are small. The home holds at most
  // `limit_bytes`; it only counts where the device is `dry`.
  RankOffload(const Plan& plan, int64_t num_blocks,
              const TrainedParameters& trained, int64_t limit_bytes, bool dry);

  // Before anything is trained, where the plan has a drive and this is not dry:
  // makes room there for `bytes`, as a dry one counted them. Errors: those of
  // NvmeDevice.
  absl::Status OpenDrive(int64_t bytes, int rank);

  // The blocks of a part, but for those that the plan keeps on the device,
  // where embedding and head stay, too.
  UnitHome HomeOf(const LocalModel::Part& part);
  std::vector<ProgramUnit> ProgramUnits(const LocalModel::Part& part,
                                        const ParameterBuckets& buckets);

  // Before MakeUnits, for all parts of the rank and their buckets: what its
  // blocks share on the device, and on the host on their way from a drive.
  void MakeBuffers(const std::vector<LocalModel::Part>& parts,
                   const std::vector<const ParameterBuckets*>& buckets,
                   Device& device, DType dtype);
  // Outlived by this.
  std::unique_ptr<OffloadedUnits> MakeUnits(ParallelContext& context,
                                            const LocalModel::Part& part,
                                            const ParameterBuckets& buckets,
                                            GradientReducer& reducer,
                                            uint64_t seed);

  // Of a dry one, before `device` has anything allocated for the rank: that the
  // system lets this process pin what PinHome will. ResourceExhausted: it does
  // not.
  absl::Status CheckPinning(
      const Device& device, int rank,
      const std::vector<const OffloadedUnits*>& units) const;
  // Once all is made, for a device that is a GPU: has it copy what `units` copy
  // of the home by itself. Small tensors, which would share pages with others,
  // pass through a buffer of the streams. ResourceExhausted, where the system
  // lets no process pin so much.
  absl::Status PinHome(const Device& device, int rank,
                       const std::vector<const OffloadedUnits*>& units);

  // When a step fetches which of the rank's parts' units, of a list of its
  // Program: what the window of blocks that lie on a drive follows.
  void ExpectFetches(const std::vector<Instruction>& list,
                     const std::vector<ExecutorChunk>& chunks,
                     const std::vector<const OffloadedUnits*>& units);

  const Device& home() const { return home_; }
  // Where the states of what has its home there lie; null where the plan has no
  // drive.
  NvmeDevice* drive() const { return drive_.get(); }
  // Through which blocks pass that lie on the drive; null where none do.
  UnitWindow* window() const { return window_.get(); }
  // The first failure of either.
  absl::Status status() const;

 private:
  // The units of a part that are blocks.
  struct BlockUnits {
    int begin = 0;
    int end = 0;
  };
  BlockUnits BlocksOf(const LocalModel::Part& part) const;
  // Of the home, what a GPU copies by itself.
  std::vector<Tensor> PinnedTensors(
      const std::vector<const OffloadedUnits*>& units) const;
  absl::Status CannotPin(int rank, int64_t bytes,
                         const absl::Status& why) const;

  const Plan::Offload::Nvme nvme_;
  const int64_t num_blocks_;
  const int resident_units_;
  const int device_blocks_;
  const bool trained_at_home_;
  const bool keeps_gradient_shards_;
  CpuDevice home_;
  std::unique_ptr<PinnedMemory> pinned_;
  std::unique_ptr<NvmeDevice> drive_;
  std::unique_ptr<UnitWindow> window_;
  std::unique_ptr<DeviceBuffers> places_;
  std::unique_ptr<DeviceBuffers> gradient_buffers_;
  HostBuffers inputs_{home_, MemoryCategory::kActivations, "inputs of blocks"};
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_RANK_RANK_OFFLOAD_H_
