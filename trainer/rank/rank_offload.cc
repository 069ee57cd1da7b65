#include "trainer/rank/rank_offload.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "fmt/format.h"
#include "parallel/optimizer/state_streamer.h"
#include "runtime/core/status.h"
#include "runtime/device/compute_device.h"
#include "runtime/device/host_memory.h"
#include "runtime/device/host_pages.h"
#include "runtime/device/locked_memory.h"
#include "runtime/device/nvme/extents.h"
#include "trainer/config/local_path.h"
#include "trainer/rank/plan_translation.h"

namespace trireme {

// What lies on the drive is moved in whole blocks from where it is.
static_assert(StateStreamer::kBucketBytes % Extents::kBlockBytes == 0 &&
              StateStreamer::kTensorBytes % Extents::kAlignment == 0);

RankOffload::RankOffload(const Plan& plan, int64_t num_blocks,
                         const TrainedParameters& trained, int64_t limit_bytes,
                         bool dry)
    : nvme_(plan.offload().nvme()),
      num_blocks_(num_blocks),
      resident_units_(static_cast<int>(plan.offload().resident_units())),
      device_blocks_(static_cast<int>(plan.offload().device_blocks())),
      trained_at_home_(trained.LeaveTheDevice()),
      keeps_gradient_shards_(ShardingOf(plan).level >=
                             DataSharding::Level::kGradients),
      home_(limit_bytes, dry ? CpuDevice::Mode::kDry : CpuDevice::Mode::kReal) {
  if (dry && plan.offload().has_nvme()) drive_ = NvmeDevice::Dry(home_);
}

absl::Status RankOffload::OpenDrive(int64_t bytes, int rank) {
  ASSIGN_OR_RETURN(const std::string folder, LocalPath(nvme_.folder()));
  NvmeDevice::Options options = {
      .folder = folder, .bytes = bytes, .owner = fmt::format("rank {}", rank)};
  if (nvme_.io() == Plan::Offload::Nvme::IO_URING) {
    options.engine = MakeUringEngine;
  } else if (nvme_.io() == Plan::Offload::Nvme::THREADS) {
    options.engine = MakeThreadEngine;
  }
  absl::StatusOr<std::unique_ptr<NvmeDevice>> drive =
      NvmeDevice::Open(options, home_);
  RETURN_IF_ERROR(WithContext(drive.status(), "plan.offload.nvme"));
  drive_ = *std::move(drive);
  return absl::OkStatus();
}

absl::Status RankOffload::status() const {
  RETURN_IF_ERROR(home_.status());
  return drive_ ? drive_->drive_status() : absl::OkStatus();
}

RankOffload::BlockUnits RankOffload::BlocksOf(
    const LocalModel::Part& part) const {
  return {.begin = part.request.has_embedding() ? 1 : 0,
          .end = part.chunk->num_units() -
                 (part.request.has_head(num_blocks_) ? 1 : 0)};
}

UnitHome RankOffload::HomeOf(const LocalModel::Part& part) {
  const BlockUnits blocks = BlocksOf(part);
  return {.device = &home_,
          .begin = blocks.begin + device_blocks_,
          .end = blocks.end,
          .trained = trained_at_home_};
}

std::vector<ProgramUnit> RankOffload::ProgramUnits(
    const LocalModel::Part& part, const ParameterBuckets& buckets) {
  const auto [begin, end] = BlocksOf(part);
  std::vector<ProgramUnit> units;
  for (int block = begin; block < end; ++block) {
    ProgramUnit& unit = units.emplace_back();
    unit.begin = block == begin ? 0 : block;
    unit.end = block + 1 == end ? part.chunk->num_units() : block + 1;
    for (int b = 0; b < buckets.size(); ++b) {
      const int of_bucket = buckets[b].parameters[0]->unit;
      if (of_bucket >= unit.begin && of_bucket < unit.end) {
        unit.buckets.push_back(b);
      }
    }
  }
  return units;
}

void RankOffload::MakeBuffers(
    const std::vector<LocalModel::Part>& parts,
    const std::vector<const ParameterBuckets*>& buckets, Device& device,
    DType dtype) {
  int blocks = 0;
  UnitLayout on_device, at_home;
  for (size_t i = 0; i < parts.size(); ++i) {
    const UnitHome home = HomeOf(parts[i]);
    blocks += home.end - home.begin;
    const auto grow = [&](UnitLayout& largest, UnitLayout::Where where) {
      for (const auto& [unit, layout] : LayOutUnits(
               parts[i].store->parameters(), *buckets[i], home, where)) {
        largest.GrowTo(layout);
      }
    };
    grow(on_device, UnitLayout::Where::kDevice);
    grow(at_home, UnitLayout::Where::kHome);
  }
  places_ = std::make_unique<DeviceBuffers>(
      device, std::min(resident_units_, blocks), on_device.Buffers(dtype),
      MemoryCategory::kParameters, "place of a block's parameters");
  // Shards are added up beside what is to be summed.
  const int64_t shards = keeps_gradient_shards_ ? at_home.trained : 0;
  gradient_buffers_ = std::make_unique<DeviceBuffers>(
      device, std::min<int>(Offload::kGradientBuffers, blocks),
      std::vector<DeviceBuffers::Buffer>{
          {on_device.trained, ComputeDType(dtype)},
          {shards, ComputeDType(dtype)}},
      MemoryCategory::kGradients, "gradients of a block");
  if (nvme_.host_units() == 0) return;
  window_ = std::make_unique<UnitWindow>(
      home_, *drive_, std::min(static_cast<int>(nvme_.host_units()), blocks),
      at_home.Buffers(dtype));
  for (const Tensor& memory : window_->memory()) drive_->Register(memory);
}

std::unique_ptr<OffloadedUnits> RankOffload::MakeUnits(
    ParallelContext& context, const LocalModel::Part& part,
    const ParameterBuckets& buckets, GradientReducer& reducer, uint64_t seed) {
  return std::make_unique<OffloadedUnits>(
      context, part.store->parameters(), HomeOf(part), buckets, reducer,
      OffloadedUnits::Buffers{.places = *places_,
                              .gradients = *gradient_buffers_,
                              .inputs = inputs_,
                              .window = window_.get()},
      seed);
}

std::vector<Tensor> RankOffload::PinnedTensors(
    const std::vector<const OffloadedUnits*>& units) const {
  std::vector<Tensor> copied;
  const auto add = [&](const std::vector<Tensor>& memory) {
    for (const Tensor& tensor : memory) {
      // Others are malloc's.
      if (tensor.bytes() < HostMemory::kMinSlabBlockBytes) continue;
      copied.push_back(tensor);
    }
  };
  for (const OffloadedUnits* of_chunk : units) add(of_chunk->copied_memory());
  if (window_) add(window_->memory());
  return copied;
}

absl::Status RankOffload::CannotPin(int rank, int64_t bytes,
                                    const absl::Status& why) const {
  const std::optional<int64_t> limit = LockedMemoryLimit();
  return ResourceExhausted(
      "rank {}: {} of host memory, of {}, could not be pinned for copies to "
      "and from the GPU: {}. `ulimit -l` is {}. To fit: raise it, use "
      "fewer ranks on this machine, or offload.nvme with host_units",
      rank, BytesText(bytes),
      MemoryText(home_.Statistics().current_by_category), MessageOf(why),
      limit.has_value() ? BytesText(*limit) : "unlimited");
}

absl::Status RankOffload::CheckPinning(
    const Device& device, int rank,
    const std::vector<const OffloadedUnits*>& units) const {
  if (DeviceKindOf(device) != DeviceKind::kCuda || device.dry()) {
    return absl::OkStatus();
  }
  int64_t bytes = 0;
  for (const Tensor& tensor : PinnedTensors(units)) bytes += tensor.bytes();
  const absl::Status allowed =
      CheckLockable(bytes, LockedMemoryLimit(), [](std::span<std::byte> pages) {
        return PinnedMemory::Pin({pages}).status();
      });
  return allowed.ok() ? allowed : CannotPin(rank, bytes, allowed);
}

absl::Status RankOffload::PinHome(
    const Device& device, int rank,
    const std::vector<const OffloadedUnits*>& units) {
  if (DeviceKindOf(device) != DeviceKind::kCuda || device.dry()) {
    return absl::OkStatus();
  }
  std::vector<std::span<std::byte>> pages = PagesOf(PinnedTensors(units));
  int64_t bytes = 0;
  for (const std::span<std::byte> range : pages) {
    bytes += static_cast<int64_t>(range.size());
  }
  auto pinned = PinnedMemory::Pin(std::move(pages));
  if (!pinned.ok()) return CannotPin(rank, bytes, pinned.status());
  pinned_ = *std::move(pinned);
  return absl::OkStatus();
}

void RankOffload::ExpectFetches(
    const std::vector<Instruction>& list,
    const std::vector<ExecutorChunk>& chunks,
    const std::vector<const OffloadedUnits*>& units) {
  if (window_ == nullptr) return;
  std::vector<int> order;
  for (const Instruction& instruction : list) {
    if (instruction.kind != InstructionKind::kFetch) continue;
    const ProgramUnit& fetched =
        chunks[instruction.chunk].program_units[instruction.unit];
    for (int unit = fetched.begin; unit < fetched.end; ++unit) {
      const int number = units[instruction.chunk]->WindowUnit(unit);
      if (number >= 0) order.push_back(number);
    }
  }
  window_->set_order(std::move(order));
}

}  // namespace trireme
