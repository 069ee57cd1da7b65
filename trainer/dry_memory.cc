#include "trainer/dry_memory.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "parallel/chunk_pass.h"
#include "parallel/process_grid.h"
#include "runtime/comm/collective.h"
#include "runtime/comm/dry.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "trainer/local_model.h"
#include "trainer/plan_translation.h"

namespace trireme {
namespace {

// What a chunk of some blocks holds.
struct ChunkFigures {
  PartMemory memory;
  // Above what it keeps at that time: during forward and backward.
  int64_t transient_bytes = 0;
};

PartMemory Difference(const PartMemory& a, const PartMemory& b) {
  return {.parameters = a.parameters - b.parameters,
          .constant_bytes = a.constant_bytes - b.constant_bytes,
          .activation_bytes = a.activation_bytes - b.activation_bytes,
          .deferred_bytes = a.deferred_bytes - b.deferred_bytes};
}

class DryChunk {
 public:
  DryChunk(const TrainingSetup& setup, const BlockSplit& split,
           Plan::Recompute recompute, const BlockRange& blocks)
      : device_(std::numeric_limits<int64_t>::max(), CpuDevice::Mode::kDry),
        world_(0, static_cast<int>(split.tp * split.cp)),
        model_(setup, GridOf(split), world_,
               {.ulysses = static_cast<int>(split.ulysses)},
               {{{.blocks = blocks,
                  .recompute = RecomputeOf(recompute),
                  .sequence_parallel = split.sequence_parallel,
                  .microbatch_size = split.microbatch_size}}},
               device_) {
    int64_t bytes = 0;
    for (const auto& parameter : model_.part().store->parameters()) {
      figures_.memory.parameters += parameter->value.num_elements();
      bytes += parameter->value.bytes();
    }
    figures_.memory.constant_bytes = Now() - bytes;
    model_.MakeGradients();
    model_.inputs().Set(
        EmptyBatch(device_, model_.Fields(), split.microbatch_size),
        *setup.objective);
  }

  ChunkFigures Run(bool deferred) {
    const int64_t before = Now();
    device_.ResetPeak();
    AllResident store;
    Chunk& chunk = *model_.part().chunk;
    ChunkPass pass(model_.context(), chunk, store, /*microbatch=*/0);
    pass.Forward(EmptyBoundary(device_, chunk.Boundary(0)));
    CHECK_OK(model_.status());
    const int64_t peak_forward = device_.Statistics().peak_bytes;
    figures_.memory.activation_bytes = Now() - before;
    const int64_t kept = Now();
    device_.ResetPeak();
    pass.Backward(EmptyBoundary(device_, chunk.Boundary(chunk.num_units())),
                  deferred ? Tape::WeightGradients::kDeferred
                           : Tape::WeightGradients::kImmediate);
    const int64_t peak_backward = device_.Statistics().peak_bytes;
    figures_.memory.deferred_bytes = deferred ? Now() - before : 0;
    if (deferred) pass.BackwardWeight();
    figures_.transient_bytes = std::max(peak_forward, peak_backward) - kept;
    return figures_;
  }

 private:
  static ProcessGrid GridOf(const BlockSplit& split) {
    auto grid = ProcessGrid::Create(
        {.tp = static_cast<int>(split.tp), .cp = static_cast<int>(split.cp)},
        {}, 0);
    CHECK_OK(grid.status());
    return *std::move(grid);
  }

  int64_t Now() const { return device_.Statistics().current_bytes; }

  CpuDevice device_;
  DryWorld world_;
  LocalModel model_;
  ChunkFigures figures_;
};

}  // namespace

MeasuredMemory MeasureMemory(const TrainingSetup& setup,
                             const BlockSplit& split, Plan::Recompute recompute,
                             bool deferred) {
  // A longer model of the same blocks, so that there are blocks between the
  // embedding and the head.
  TrainingSetup longer = setup;
  longer.family = setup.family->WithBlocks(6);
  const auto run = [&](int64_t first, int64_t end) {
    return DryChunk(longer, split, recompute, {.first = first, .end = end})
        .Run(deferred);
  };
  const ChunkFigures two = run(1, 3);
  const ChunkFigures three = run(1, 4);
  const ChunkFigures first = run(0, 2);
  const ChunkFigures last = run(4, 6);
  MeasuredMemory measured;
  measured.block = Difference(three.memory, two.memory);
  const auto without_blocks = [&](PartMemory memory) {
    memory = Difference(memory, measured.block);
    return Difference(memory, measured.block);
  };
  measured.chunk = without_blocks(two.memory);
  measured.embedding = Difference(first.memory, two.memory);
  measured.head = Difference(last.memory, two.memory);
  // The embedding's is left out: when it runs, the chunk holds nothing yet.
  measured.transient_bytes = three.transient_bytes;
  measured.head_transient_bytes = last.transient_bytes;
  CpuDevice device(std::numeric_limits<int64_t>::max(), CpuDevice::Mode::kDry);
  constexpr int64_t kLong = int64_t{1} << 28;
  const Tensor gradients = Tensor::Empty(device, {kLong}, DType::kFloat32);
  measured.reduction_bytes =
      ReductionSegments::Of(kLong, DType::kFloat32, /*size=*/2)
          .MakeStaging(gradients, /*size=*/2)
          .bytes();
  return measured;
}

void MeasureMemoryOf(const TrainingSetup& setup, ModelShape& shape) {
  using Key = std::tuple<int64_t, int64_t, int64_t, bool, int64_t, int, bool>;
  struct Cache {
    std::mutex mutex;
    std::map<Key, MeasuredMemory> measured;
  };
  shape.measured_memory = [setup, cache = std::make_shared<Cache>()](
                              const BlockSplit& split,
                              Plan::Recompute recompute,
                              bool deferred) -> std::optional<MeasuredMemory> {
    const ModelShape model = setup.family->Shape();
    if (model.hidden % split.tp != 0 || model.mlp_hidden % split.tp != 0 ||
        model.heads % (split.tp * split.ulysses) != 0) {
      return std::nullopt;
    }
    const Key key(split.tp, split.cp, split.ulysses, split.sequence_parallel,
                  split.microbatch_size, static_cast<int>(recompute), deferred);
    const std::lock_guard lock(cache->mutex);
    const auto found = cache->measured.find(key);
    if (found != cache->measured.end()) return found->second;
    return cache->measured
        .emplace(key, MeasureMemory(setup, split, recompute, deferred))
        .first->second;
  };
}

}  // namespace trireme
