#include "trainer/recorded_pieces.h"

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "parallel/chunk_pass.h"
#include "parallel/process_grid.h"
#include "runtime/comm/collective.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "trainer/local_model.h"
#include "trainer/plan_translation.h"
#include "trainer/recorded_collectives.h"

namespace trireme {
namespace {

using Pass = RecordedCollective::Pass;

// What a chunk of some blocks holds and asks for.
struct ChunkFigures {
  // Without kernels and collectives, which follow. transient_bytes: above what
  // it keeps at that time, during forward and backward.
  PieceFigures memory;
  std::vector<Work> forward, backward_input, backward_weight;
  std::vector<RecordedCollective> collectives;
};

PieceFigures Difference(const PieceFigures& a, const PieceFigures& b) {
  return {.parameters = a.parameters - b.parameters,
          .constant_bytes = a.constant_bytes - b.constant_bytes,
          .activation_bytes = a.activation_bytes - b.activation_bytes,
          .deferred_bytes = a.deferred_bytes - b.deferred_bytes,
          .transient_bytes = a.transient_bytes,
          .message_bytes = a.message_bytes,
          .kernels = {},
          .collectives = {}};
}

class DryChunk {
 public:
  DryChunk(const TrainingSetup& setup, const BlockSplit& split,
           Plan::Recompute recompute, const ChunkRequest& part)
      : device_(std::numeric_limits<int64_t>::max(), CpuDevice::Mode::kDry),
        world_(static_cast<int>(split.tp * split.cp), device_),
        model_(setup, GridOf(split), world_,
               {.ulysses = static_cast<int>(split.ulysses)},
               {{{.blocks = part.blocks,
                  .embedding = part.embedding,
                  .head = part.head,
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
    for (const BoundarySpec& spec : chunk.Boundary(0)) {
      figures_.memory.message_bytes +=
          spec.shape.num_elements() * DTypeSize(spec.dtype);
    }
    ChunkPass pass(model_.context(), chunk, store, /*microbatch=*/0);
    device_.stream().ListKernels(&figures_.forward);
    pass.Forward(EmptyBoundary(device_, chunk.Boundary(0)));
    CHECK_OK(model_.status());
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
  static ProcessGrid GridOf(const BlockSplit& split) {
    auto grid = ProcessGrid::Create(
        {.tp = static_cast<int>(split.tp), .cp = static_cast<int>(split.cp)},
        {}, 0);
    CHECK_OK(grid.status());
    return *std::move(grid);
  }

  int64_t Now() const { return device_.Statistics().current_bytes; }

  CpuDevice device_;
  RecordingWorld world_;
  LocalModel model_;
  ChunkFigures figures_;
};

// A chunk's collectives, each as often as another chunk has it less.
// `weight_flops`: of a block's weight gradients; 0 where they are put off.
std::vector<PieceCollective> Beyond(
    const std::vector<RecordedCollective>& chunk,
    const std::vector<RecordedCollective>& other, double weight_flops) {
  using Group = PieceCollective::Group;
  using Behind = PieceCollective::Behind;
  std::vector<PieceCollective> list;
  const auto add = [&](const RecordedCollective& recorded, int32_t count) {
    PieceCollective collective = {.group = recorded.group,
                                  .kind = recorded.kind,
                                  .bytes = recorded.bytes};
    if (recorded.flops_behind > 0 && recorded.group == Group::kRing) {
      collective.behind = Behind::kAttention;
    } else if (recorded.flops_behind > 0 && weight_flops > 0) {
      collective.behind = Behind::kProduct;
      collective.product_share =
          static_cast<double>(recorded.flops_behind) / weight_flops;
    }
    collective.for_weight_gradient = recorded.pass == Pass::kWeightGradients;
    auto same = std::find_if(list.begin(), list.end(), [&](auto of_list) {
      of_list.forward = of_list.backward = 0;
      return of_list == collective;
    });
    if (same == list.end()) same = list.insert(list.end(), collective);
    (recorded.pass == Pass::kForward ? same->forward : same->backward) += count;
  };
  for (const RecordedCollective& recorded : chunk) add(recorded, 1);
  for (const RecordedCollective& recorded : other) add(recorded, -1);
  std::erase_if(list, [](const PieceCollective& collective) {
    return collective.forward == 0 && collective.backward == 0;
  });
  return list;
}

// The same of kernels.
std::vector<PieceKernel> Beyond(const std::vector<Work>& chunk,
                                const std::vector<Work>& other) {
  std::map<std::tuple<bool, int64_t, int64_t>, int32_t> counts;
  for (const Work& work : chunk) {
    ++counts[{work.attention, work.product_flops, work.bytes}];
  }
  for (const Work& work : other) {
    --counts[{work.attention, work.product_flops, work.bytes}];
  }
  std::vector<PieceKernel> list;
  for (const auto& [work, count] : counts) {
    const auto& [attention, flops, bytes] = work;
    if (count == 0) continue;
    list.push_back({.kind = attention   ? PieceKernel::Kind::kAttention
                            : flops > 0 ? PieceKernel::Kind::kProduct
                                        : PieceKernel::Kind::kElementwise,
                    .flops = static_cast<double>(flops),
                    .bytes = static_cast<double>(bytes),
                    .count = count});
  }
  return list;
}

// Two chunks, of which one has a piece more.
struct Pair {
  ChunkFigures with, without;

  PieceKernels Kernels() const {
    return {
        .forward = Beyond(with.forward, without.forward),
        .backward_input = Beyond(with.backward_input, without.backward_input),
        .backward_weight =
            Beyond(with.backward_weight, without.backward_weight)};
  }
};

// Runs chunks so that their differences are the model's pieces.
class PieceRuns {
 public:
  PieceRuns(const TrainingSetup& setup, const BlockSplit& split,
            Plan::Recompute recompute, bool deferred)
      : setup_(setup),
        split_(split),
        recompute_(recompute),
        deferred_(deferred),
        shape_(setup.family->Shape()) {}

  // Of a block between others of its kind, as far as the model has any; a chunk
  // with none where it is alone.
  Pair OfBlock(int32_t kind) const {
    const int64_t first = FirstBlockOf(shape_, kind);
    const int64_t count = AlikeFrom(first);
    Pair pair = {.with = Run(first, first + count, false, false),
                 .without = {}};
    if (count > 1) {
      pair.without = Run(first, first + count - 1, false, false);
    }
    return pair;
  }
  Pair OfEmbedding() const {
    const int64_t count = AlikeFrom(0);
    return {.with = Run(0, count, true, false),
            .without = Run(0, count, false, false)};
  }
  Pair OfHead() const {
    const int64_t first = std::max<int64_t>(0, shape_.layers - 2);
    return {.with = Run(first, shape_.layers, false, true),
            .without = Run(first, shape_.layers, false, false)};
  }

  // Of at most three, which is enough for one to be in the middle.
  int64_t AlikeFrom(int64_t first) const {
    return std::min<int64_t>(
        3, BlockRunsIn(shape_, first, shape_.layers).front().count);
  }
  const ModelShape& shape() const { return shape_; }

 private:
  ChunkFigures Run(int64_t first, int64_t end, bool embedding,
                   bool head) const {
    return DryChunk(setup_, split_, recompute_,
                    {.blocks = {.first = first, .end = end},
                     .embedding = embedding,
                     .head = head})
        .Run(deferred_);
  }

  const TrainingSetup& setup_;
  const BlockSplit split_;
  const Plan::Recompute recompute_;
  const bool deferred_;
  const ModelShape shape_;
};

}  // namespace

const ModelPieces& PieceRecorder::Record(const BlockSplit& split,
                                         Plan::Recompute recompute,
                                         bool deferred) {
  const std::lock_guard lock(mutex_);
  return RecordLocked(split, recompute, deferred);
}

const ModelPieces& PieceRecorder::RecordLocked(const BlockSplit& split,
                                               Plan::Recompute recompute,
                                               bool deferred) {
  const Key key(split.tp, split.cp, split.ulysses, split.sequence_parallel,
                split.microbatch_size, static_cast<int>(recompute), deferred);
  const auto found = recorded_.find(key);
  if (found != recorded_.end()) return found->second;

  const PieceRuns runs(setup_, split, recompute, deferred);
  // Where the gradients of weights can be told from others.
  const ModelPieces* const parted =
      deferred ? nullptr : &RecordLocked(split, recompute, true);
  const auto figures_of = [&](const Pair& pair, const PieceFigures* in_parts) {
    PieceFigures figures = Difference(pair.with.memory, pair.without.memory);
    figures.kernels = in_parts == nullptr ? pair.Kernels() : in_parts->kernels;
    const double weight_flops =
        deferred ? 0 : ProductFlops(figures.kernels.backward_weight);
    figures.collectives =
        Beyond(pair.with.collectives, pair.without.collectives, weight_flops);
    return figures;
  };
  ModelPieces pieces;
  const int32_t kinds = NumBlockKinds(runs.shape());
  for (int32_t kind = 0; kind < kinds; ++kind) {
    const Pair pair = runs.OfBlock(kind);
    pieces.blocks.push_back(
        figures_of(pair, parted == nullptr ? nullptr : &parted->blocks[kind]));
    const int64_t alike = runs.AlikeFrom(FirstBlockOf(runs.shape(), kind));
    if (alike > 1 && pieces.chunk.activation_bytes == 0) {
      pieces.chunk = pair.with.memory;
      for (int64_t i = 0; i < alike; ++i) {
        pieces.chunk = Difference(pieces.chunk, pieces.blocks.back());
      }
    }
  }
  for (int32_t kind = 0; kind < kinds; ++kind) {
    if (runs.AlikeFrom(FirstBlockOf(runs.shape(), kind)) > 1) continue;
    PieceFigures& block = pieces.blocks[kind];
    PieceFigures alone = Difference(block, pieces.chunk);
    alone.kernels = std::move(block.kernels);
    alone.collectives = std::move(block.collectives);
    block = std::move(alone);
  }
  pieces.embedding = figures_of(
      runs.OfEmbedding(), parted == nullptr ? nullptr : &parted->embedding);
  pieces.head =
      figures_of(runs.OfHead(), parted == nullptr ? nullptr : &parted->head);
  // When the embedding runs, the chunk holds nothing yet.
  pieces.embedding.transient_bytes = 0;
  if (recompute == Plan::FULL) {
    // What backward computes again is no collective of its own.
    const ModelPieces& once = RecordLocked(split, Plan::NONE, deferred);
    for (int32_t kind = 0; kind < kinds; ++kind) {
      pieces.blocks[kind].collectives = once.blocks[kind].collectives;
    }
    pieces.embedding.collectives = once.embedding.collectives;
    pieces.head.collectives = once.head.collectives;
  }
  CpuDevice device(std::numeric_limits<int64_t>::max(), CpuDevice::Mode::kDry);
  constexpr int64_t kLong = int64_t{1} << 28;
  const Tensor gradients = Tensor::Empty(device, {kLong}, DType::kFloat32);
  pieces.reduction_bytes =
      ReductionSegments::Of(kLong, DType::kFloat32, /*size=*/2)
          .MakeStaging(gradients, /*size=*/2)
          .bytes();
  return recorded_.emplace(key, std::move(pieces)).first->second;
}

}  // namespace trireme
