#include "trainer/planning/recorded_pieces.h"

#include <algorithm>
#include <limits>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "runtime/comm/collective.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "trainer/planning/chunk_figures.h"
#include "trainer/planning/recorded_collectives.h"

namespace trireme {
namespace {

using Pass = RecordedCollective::Pass;

PieceFigures Difference(const PieceFigures& a, const PieceFigures& b) {
  return {.parameters = a.parameters - b.parameters,
          .expert_parameters = a.expert_parameters - b.expert_parameters,
          .frozen_bytes = a.frozen_bytes - b.frozen_bytes,
          .constant_bytes = a.constant_bytes - b.constant_bytes,
          .activation_bytes = a.activation_bytes - b.activation_bytes,
          .deferred_bytes = a.deferred_bytes - b.deferred_bytes,
          .transient_bytes = a.transient_bytes,
          .message_bytes = a.message_bytes,
          .skip_bytes = a.skip_bytes,
          .kernels = {},
          .collectives = {}};
}

// A chunk's collectives, each as often as another chunk has it less.
// `forward_flops`, `weight_flops`: of a block's forward and of its weight
// gradients; 0 where they are put off.
std::vector<PieceCollective> Beyond(
    const std::vector<RecordedCollective>& chunk,
    const std::vector<RecordedCollective>& other, double forward_flops,
    double weight_flops) {
  using Group = PieceCollective::Group;
  using Behind = PieceCollective::Behind;
  std::vector<PieceCollective> list;
  const auto add = [&](const RecordedCollective& recorded, int32_t count) {
    PieceCollective collective = {.group = recorded.group,
                                  .kind = recorded.kind,
                                  .bytes = recorded.bytes};
    if (recorded.flops_behind > 0 && recorded.group == Group::kRing) {
      collective.behind = Behind::kAttention;
    } else if (recorded.flops_behind > 0 && recorded.group == Group::kExperts) {
      collective.behind = Behind::kExperts;
      collective.product_share =
          static_cast<double>(recorded.flops_behind) / forward_flops;
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
  const auto key = [](const Work& work) {
    return std::tuple(work.attention, work.float8, work.product_flops,
                      work.bytes);
  };
  std::map<std::tuple<bool, bool, int64_t, int64_t>, int32_t> counts;
  for (const Work& work : chunk) ++counts[key(work)];
  for (const Work& work : other) --counts[key(work)];
  std::vector<PieceKernel> list;
  for (const auto& [work, count] : counts) {
    const auto& [attention, float8, flops, bytes] = work;
    if (count == 0) continue;
    list.push_back({.kind = attention   ? PieceKernel::Kind::kAttention
                            : float8    ? PieceKernel::Kind::kFloat8Product
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
  PieceRuns(ChunkRuns& runs, const ChunkMode& mode)
      : runs_(runs), mode_(mode) {}

  // Of a block between others of its kind, as far as the model has any; a chunk
  // with none where it is alone.
  Pair OfBlock(int32_t kind) const {
    const int64_t first = FirstBlockOf(shape(), kind);
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
    const int64_t first = std::max<int64_t>(0, shape().layers - 2);
    return {.with = Run(first, shape().layers, false, true),
            .without = Run(first, shape().layers, false, false)};
  }

  // Of at most three, which is enough for one to be in the middle.
  int64_t AlikeFrom(int64_t first) const {
    return std::min<int64_t>(
        3, BlockRunsIn(shape(), first, shape().layers).front().count);
  }
  const ModelShape& shape() const { return runs_.shape(); }

 private:
  ChunkFigures Run(int64_t first, int64_t end, bool embedding,
                   bool head) const {
    return runs_.Of(mode_, first, end, embedding, head);
  }

  ChunkRuns& runs_;
  const ChunkMode mode_;
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
  const Key key(split, static_cast<int>(recompute), deferred);
  const auto found = recorded_.find(key);
  if (found != recorded_.end()) return found->second;

  const PieceRuns runs(
      chunks_, {.split = split, .recompute = recompute, .deferred = deferred});
  // Where the gradients of weights can be told from others.
  const ModelPieces* const parted =
      deferred ? nullptr : &RecordLocked(split, recompute, true);
  const auto figures_of = [&](const Pair& pair, const PieceFigures* in_parts) {
    PieceFigures figures = Difference(pair.with.memory, pair.without.memory);
    figures.kernels = in_parts == nullptr ? pair.Kernels() : in_parts->kernels;
    const double weight_flops =
        deferred ? 0 : ProductFlops(figures.kernels.backward_weight);
    figures.collectives =
        Beyond(pair.with.collectives, pair.without.collectives,
               ProductFlops(figures.kernels.forward), weight_flops);
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
