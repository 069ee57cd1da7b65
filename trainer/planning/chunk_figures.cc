#include "trainer/planning/chunk_figures.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "parallel/executor/chunk_pass.h"
#include "parallel/grid/process_grid.h"
#include "parallel/grid/shard_copies.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "trainer/rank/local_model.h"
#include "trainer/rank/plan_translation.h"

namespace trireme {
namespace {

using Pass = RecordedCollective::Pass;

// Of a parameter that does not train.
int64_t BytesOf(const Parameter& parameter) {
  return parameter.quantized.defined() ? parameter.quantized.codes.bytes() +
                                             parameter.quantized.scales.bytes()
                                       : parameter.value.bytes();
}

class DryChunk {
 public:
  DryChunk(const TrainingSetup& setup, const ChunkMode& mode,
           double expert_load, const ChunkRequest& part)
      : device_(std::numeric_limits<int64_t>::max(), CpuDevice::Mode::kDry),
        world_(static_cast<int>(mode.split.tp * mode.split.cp *
                                ReplicasOf(mode.split)),
               device_),
        model_(
            setup, GridOf(mode.split), world_,
            {.ulysses = static_cast<int>(mode.split.ulysses),
             .experts = {.moves = mode.split.moves_weights
                                      ? ExpertExchange::Moves::kWeights
                                      : ExpertExchange::Moves::kRows,
                         .node_ranks = static_cast<int>(mode.split.node_ranks),
                         .deduplicates = mode.split.deduplicates,
                         .chunks = static_cast<int>(mode.split.row_chunks),
                         .slices = SlicesOf(*setup.family, mode.split.ep),
                         .row_copies = static_cast<int>(mode.split.row_copies),
                         .shadowed = static_cast<int>(mode.split.shadowed),
                         .sums_by_rank = mode.split.sums_by_rank,
                         .max_load = mode.split.max_load,
                         .expected_load = expert_load}},
            {{{.blocks = part.blocks,
               .embedding = part.embedding,
               .head = part.head,
               .recompute = RecomputeOf(mode.recompute),
               .sequence_parallel = mode.split.sequence_parallel,
               .microbatch_size = mode.split.microbatch_size}}},
            device_),
        has_experts_(setup.family->Shape().experts > 0) {
    int64_t bytes = 0;
    for (const auto& parameter : model_.part().store->parameters()) {
      if (!parameter->trainable) {
        figures_.memory.frozen_bytes += BytesOf(*parameter);
        continue;
      }
      figures_.memory.parameters += parameter->value.num_elements();
      bytes += parameter->value.bytes();
    }
    figures_.memory.constant_bytes =
        Now() - bytes - figures_.memory.frozen_bytes;
    model_.MakeGradients();
    if (model_.delayed_scaling() != nullptr) {
      model_.delayed_scaling()->AssumeHistories();
    }
    model_.inputs().Set(
        EmptyBatch(device_, model_.Fields(), mode.split.microbatch_size),
        *setup.objective);
  }

  // What its layers refuse.
  absl::Status Accepts() {
    AllResident store;
    Chunk& chunk = *model_.part().chunk;
    ChunkPass pass(model_.context(), chunk, store, /*microbatch=*/0);
    pass.Forward(EmptyBoundary(device_, chunk.Boundary(0)));
    return model_.status();
  }

  ChunkFigures Run(bool deferred) {
    const int64_t before = Now();
    device_.ResetPeak();
    AllResident store;
    Chunk& chunk = *model_.part().chunk;
    for (const BoundarySpec& spec : chunk.Boundary(0)) {
      const int64_t bytes = spec.shape.num_elements() * DTypeSize(spec.dtype);
      figures_.memory.message_bytes += bytes;
      if (spec.skip_of >= 0) figures_.memory.skip_bytes = bytes;
    }
    ChunkPass pass(model_.context(), chunk, store, /*microbatch=*/0);
    device_.stream().ListKernels(&figures_.forward);
    pass.Forward(EmptyBoundary(device_, chunk.Boundary(0)));
    CHECK_OK(model_.status());
    if (has_experts_) CountExpertParameters();
    const int64_t peak_forward = device_.Statistics().peak_bytes;
    figures_.memory.activation_bytes = Now() - before;
    const int64_t kept = Now();
    device_.ResetPeak();
    world_.SetPass(Pass::kBackward);
    device_.stream().ListKernels(&figures_.backward_input);
    pass.Backward(EmptyBoundary(device_, chunk.Boundary(chunk.num_units())),
                  deferred ? Tape::WeightGradients::kDeferred
                           : Tape::WeightGradients::kImmediate);
    const int64_t peak_backward = device_.Statistics().peak_bytes;
    figures_.memory.deferred_bytes = deferred ? Now() - before : 0;
    if (deferred) {
      world_.SetPass(Pass::kWeightGradients);
      device_.stream().ListKernels(&figures_.backward_weight);
      pass.BackwardWeight();
    }
    device_.stream().ListKernels(nullptr);
    figures_.collectives = world_.recorded();
    figures_.memory.transient_bytes =
        std::max(peak_forward, peak_backward) - kept;
    return figures_;
  }

 private:
  // Of data parallelism, as many as a grid of experts needs.
  static int64_t ReplicasOf(const BlockSplit& split) {
    return split.ep / std::gcd(split.ep, split.tp * split.cp);
  }
  static ProcessGrid GridOf(const BlockSplit& split) {
    auto grid = ProcessGrid::Create({.tp = static_cast<int>(split.tp),
                                     .cp = static_cast<int>(split.cp),
                                     .ep = static_cast<int>(split.ep),
                                     .dp = static_cast<int>(ReplicasOf(split))},
                                    {}, 0);
    CHECK_OK(grid.status());
    return *std::move(grid);
  }

  // By what they meet in forward.
  void CountExpertParameters() {
    const bool on_grid = model_.context().grid().size(Axis::kExpert) > 1;
    for (const auto& parameter : model_.part().store->parameters()) {
      if (on_grid ? ShardedOver(parameter->shards, Axis::kExpert)
                  : parameter->gradient_sum_axes.contains(Axis::kTensor)) {
        figures_.memory.expert_parameters += parameter->local_elements();
      }
    }
  }

  int64_t Now() const { return device_.Statistics().current_bytes; }

  CpuDevice device_;
  RecordingWorld world_;
  LocalModel model_;
  const bool has_experts_;
  ChunkFigures figures_;
};

// The microbatches of a chord.
constexpr int64_t kSmall = 1;
constexpr int64_t kLarge = 128;

int64_t Between(int64_t small, int64_t large, int64_t size) {
  return small + std::llround(static_cast<double>(large - small) *
                              static_cast<double>(size - kSmall) /
                              static_cast<double>(kLarge - kSmall));
}

void MoveBetween(std::vector<Work>& small, const std::vector<Work>& large,
                 int64_t size) {
  for (size_t i = 0; i < small.size(); ++i) {
    small[i].product_flops =
        Between(small[i].product_flops, large[i].product_flops, size);
    small[i].bytes = Between(small[i].bytes, large[i].bytes, size);
  }
}

// Whether both list the same kernels and collectives.
bool Alike(const ChunkFigures& a, const ChunkFigures& b) {
  const auto work = [](const std::vector<Work>& x, const std::vector<Work>& y) {
    return std::equal(x.begin(), x.end(), y.begin(), y.end(),
                      [](const Work& one, const Work& other) {
                        return one.attention == other.attention &&
                               one.float8 == other.float8 &&
                               (one.product_flops > 0) ==
                                   (other.product_flops > 0);
                      });
  };
  return work(a.forward, b.forward) &&
         work(a.backward_input, b.backward_input) &&
         work(a.backward_weight, b.backward_weight) &&
         std::equal(a.collectives.begin(), a.collectives.end(),
                    b.collectives.begin(), b.collectives.end(),
                    [](const RecordedCollective& one,
                       const RecordedCollective& other) {
                      return one.group == other.group &&
                             one.kind == other.kind && one.pass == other.pass &&
                             (one.flops_behind > 0) == (other.flops_behind > 0);
                    });
}

// Of a microbatch between kSmall and kLarge.
ChunkFigures OnChord(ChunkFigures small, const ChunkFigures& large,
                     int64_t size) {
  for (int64_t PieceFigures::*const figure :
       {&PieceFigures::constant_bytes, &PieceFigures::activation_bytes,
        &PieceFigures::deferred_bytes, &PieceFigures::transient_bytes,
        &PieceFigures::message_bytes, &PieceFigures::skip_bytes}) {
    small.memory.*figure =
        Between(small.memory.*figure, large.memory.*figure, size);
  }
  MoveBetween(small.forward, large.forward, size);
  MoveBetween(small.backward_input, large.backward_input, size);
  MoveBetween(small.backward_weight, large.backward_weight, size);
  for (size_t i = 0; i < small.collectives.size(); ++i) {
    RecordedCollective& collective = small.collectives[i];
    const RecordedCollective& other = large.collectives[i];
    collective.bytes = Between(collective.bytes, other.bytes, size);
    collective.flops_behind =
        Between(collective.flops_behind, other.flops_behind, size);
  }
  return small;
}

}  // namespace

absl::Status CheckModel(const TrainingSetup& setup) {
  return DryChunk(setup, /*mode=*/{}, /*expert_load=*/1,
                  {.blocks = {.first = 0, .end = setup.family->Shape().layers},
                   .embedding = true,
                   .head = true})
      .Accepts();
}

const ChunkFigures& ChunkRuns::Run(const ChunkMode& mode, int64_t first,
                                   int64_t end, bool embedding, bool head) {
  const BlockSplit& split = mode.split;
  std::vector<std::pair<int32_t, int64_t>> kinds;
  for (const BlockRun& run : BlockRunsIn(shape_, first, end)) {
    kinds.emplace_back(run.kind, run.count);
  }
  const Key key(split, static_cast<int>(mode.recompute), mode.deferred,
                std::move(kinds), embedding, head);
  const auto found = runs_.find(key);
  if (found != runs_.end()) return found->second;
  DryChunk chunk(setup_, mode, expert_load_,
                 {.blocks = {.first = first, .end = end},
                  .embedding = embedding,
                  .head = head});
  return runs_.emplace(key, chunk.Run(mode.deferred)).first->second;
}

ChunkFigures ChunkRuns::Of(const ChunkMode& mode, int64_t first, int64_t end,
                           bool embedding, bool head) {
  const int64_t size = mode.split.microbatch_size;
  if (size > kSmall && size < kLarge) {
    ChunkMode of_small = mode, of_large = mode;
    of_small.split.microbatch_size = kSmall;
    of_large.split.microbatch_size = kLarge;
    const ChunkFigures& small = Run(of_small, first, end, embedding, head);
    const ChunkFigures& large = Run(of_large, first, end, embedding, head);
    if (Alike(small, large)) return OnChord(small, large, size);
  }
  return Run(mode, first, end, embedding, head);
}

}  // namespace trireme
