#include "models/sparse_vae/sparse_vae.h"

#include <array>
#include <utility>

#include "fmt/format.h"
#include "models/objective/objective.h"
#include "models/transformer/streams.h"
#include "models/triposg/triposg_block.h"
#include "parallel/grid/transitions.h"
#include "parallel/layers/autoencoder_functional.h"
#include "parallel/layers/voxel_functional.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/core/voxel_order.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/random.h"

namespace trireme {
namespace {

Tensor In(const Tensor& x, DType dtype) {
  return x.dtype() == dtype ? x : Cast(x, dtype);
}

}  // namespace

struct SparseVaePart::Bottleneck {
  AffineNorm norm;
  ReplicatedLinear moments;
  ReplicatedLinear latents;
};

SparseVaePart::SparseVaePart(ParameterStore& store, const ProcessGrid& grid,
                             const SparseVaeConfig& config,
                             const ChunkRequest& request)
    : config_(config),
      request_(request),
      device_(store.device()),
      dtype_(store.dtype()),
      noise_seed_(store.seed() ^ StableHash("latents")),
      sequence_parallel_(request.sequence_parallel &&
                         grid.size(Axis::kTensor) > 1),
      latents_(LayOutTokens(config.tokens.back(), grid, /*over_context=*/false,
                            sequence_parallel_)) {
  using Kind = SparseVaeConfig::Kind;
  const Keep keep = request.recompute.kind == BlockRecompute::Kind::kSelective
                        ? Keep::kRecipe
                        : Keep::kValue;
  if (request.has_embedding()) {
    store.BeginUnit();
    embedding_ = std::make_unique<ReplicatedLinear>(
        store, "embedding", config.voxel_channels, config.width(0));
  }
  for (int64_t i = request.blocks.first; i < request.blocks.end; ++i) {
    store.BeginUnit();
    const std::string name = fmt::format("blocks.{}", i);
    const int64_t level = config.level_before(i);
    coarsen_.emplace_back();
    attend_.emplace_back();
    refine_.emplace_back();
    switch (config.kind(i)) {
      case Kind::kCoarsen:
        coarsen_.back() = std::make_unique<CoarsenBlock>(
            store, name, config.width(level), config.width(level + 1));
        break;
      case Kind::kEncode:
      case Kind::kDecode:
        if (i == config.first_decoder()) {
          bottleneck_ = std::make_shared<Bottleneck>(
              Bottleneck{AffineNorm(store, "moments.norm", config.hidden),
                         ReplicatedLinear(store, "moments.linear",
                                          config.hidden, 2 * config.channels),
                         ReplicatedLinear(store, "latent_embedding",
                                          config.channels, config.hidden)});
        }
        attend_.back() = std::make_unique<ShapeVaeBlock>(
            store, grid, name,
            ShapeVaeBlockSizes{.hidden = config.hidden, .heads = config.heads},
            keep);
        break;
      case Kind::kRefine:
        refine_.back() = std::make_unique<RefineBlock>(
            store, name, config.width(level), config.width(level - 1));
        break;
    }
  }
  if (request.has_head(config.layers())) {
    store.BeginUnit();
    head_ = std::make_unique<ReplicatedLinear>(store, "final", config.width(0),
                                               config.voxel_channels);
  }
}

AxisStates SparseVaePart::TokenStates() const {
  AxisStates states = BatchStates();
  if (sequence_parallel_) states[Axis::kTensor] = AxisState::Shard(1);
  return states;
}

BoundarySpec SparseVaePart::Boundary(int block, int64_t b) const {
  const int64_t index = index_of(block);
  const int64_t level = config_.level_before(index);
  // Between blocks of attention tokens lie as these leave them.
  const bool attended =
      index > config_.first_encoder() && index <= config_.first_refining();
  const int64_t tokens = attended                  ? latents_.local.count
                         : level == config_.levels ? latents()
                                                   : config_.tokens[level];
  return {{b, tokens, config_.width(level)},
          dtype_,
          attended ? TokenStates() : BatchStates()};
}

VoxelLevel SparseVaePart::Finest(const Tensor& voxels,
                                 const Tensor& counts) const {
  return {.resolution = config_.resolution, .voxels = voxels, .counts = counts};
}

VoxelLevels SparseVaePart::LevelsAt(const VoxelLevel& finest,
                                    int64_t level) const {
  VoxelLevels levels;
  levels.coarse = finest;
  for (int64_t i = 0; i <= level; ++i) {
    levels.fine = levels.coarse;
    levels.tables = CoarsenVoxels(
        levels.fine.voxels, levels.fine.resolution,
        i + 1 == config_.levels ? latents() : config_.tokens[i + 1], dtype_);
    levels.coarse = {.resolution = config_.resolution_of(i + 1),
                     .voxels = levels.tables.voxels,
                     .counts = levels.tables.counts};
  }
  return levels;
}

VoxelLevel SparseVaePart::Level(const VoxelLevel& finest, int64_t level) const {
  return level == 0 ? finest : LevelsAt(finest, level - 1).coarse;
}

ShardedVariable SparseVaePart::Embed(ForwardContext& context,
                                     const Tensor& features) const {
  CHECK(has_embedding());
  return embedding_->Forward(context, BatchConstant(In(features, dtype_)));
}

ShardedVariable SparseVaePart::AddPositions(ForwardContext& context,
                                            const VoxelLevel& coarsest,
                                            const ShardedVariable& x) const {
  return Add(
      context, x,
      BatchConstant(VoxelPositions(coarsest.voxels, config_.hidden, dtype_)));
}

ShardedVariable SparseVaePart::Attend(ForwardContext& context, int block,
                                      const VoxelLevel& finest,
                                      const ShardedVariable& x) const {
  const VoxelLevel coarsest = Level(finest, config_.levels);
  ShardedVariable tokens = x;
  const int64_t index = index_of(block);
  if (index == config_.first_encoder() || index == config_.first_decoder()) {
    tokens = Transition(context, AddPositions(context, coarsest, x),
                        Axis::kTensor, TokenStates()[Axis::kTensor]);
  }
  const int64_t first = index < config_.first_decoder()
                            ? config_.first_encoder()
                            : config_.first_decoder();
  const VoxelWindows windows =
      WindowVoxels(coarsest.voxels, /*shifted=*/(index - first) % 2 == 1);
  return attend_[block]->Forward(
      context,
      {.tokens = latents_, .context_parallel = false, .windows = &windows},
      tokens, nullptr);
}

ShardedVariable SparseVaePart::RunBlock(ForwardContext& context, int block,
                                        const VoxelLevel& finest,
                                        const ShardedVariable& x) const {
  if (attend_[block] != nullptr) return Attend(context, block, finest, x);
  const int64_t level = config_.level_before(index_of(block));
  if (coarsen_[block] != nullptr) {
    return coarsen_[block]->Forward(context, x, LevelsAt(finest, level));
  }
  const ShardedVariable whole =
      Transition(context, x, Axis::kTensor, AxisState::Invariant());
  return refine_[block]->Forward(context, whole, LevelsAt(finest, level - 1));
}

ShardedVariable SparseVaePart::Moments(ForwardContext& context,
                                       const ShardedVariable& x) const {
  CHECK(bottleneck_ != nullptr);
  const ShardedVariable whole =
      Transition(context, x, Axis::kTensor, AxisState::Invariant());
  return bottleneck_->moments.Forward(
      context, bottleneck_->norm.Forward(context, whole));
}

ShardedVariable SparseVaePart::EmbedLatents(ForwardContext& context,
                                            const ShardedVariable& z) const {
  CHECK(bottleneck_ != nullptr);
  return bottleneck_->latents.Forward(context, z);
}

Tensor SparseVaePart::Noise(std::span<const uint64_t> samples,
                            int64_t step) const {
  const int64_t of_sample = latents() * config_.channels;
  const Tensor noise = Tensor::Zeros(
      device_,
      {static_cast<int64_t>(samples.size()), latents(), config_.channels},
      dtype_, MemoryCategory::kActivations, "noise of latents");
  for (size_t i = 0; i < samples.size(); ++i) {
    const std::array<ElementRun, 1> run = {
        {{.from = 0,
          .to = static_cast<int64_t>(i) * of_sample,
          .count = of_sample}}};
    FillRandom(RandomStream({.seed = noise_seed_,
                             .step = static_cast<uint64_t>(step),
                             .sample = samples[i],
                             .purpose = RandomPurpose::kNoise}),
               Distribution::kNormal, 1, run, noise);
  }
  return noise;
}

ShardedVariable SparseVaePart::Values(ForwardContext& context,
                                      const ShardedVariable& x) const {
  CHECK(has_head());
  return head_->Forward(context, x);
}

void SparseVaePart::AddDivergence(ForwardContext& context,
                                  const ShardedVariable& moments,
                                  const Tensor& counts,
                                  int64_t global_batch) const {
  AddLoss(context, GaussianDivergence(context, moments, &counts),
          config_.divergence / static_cast<double>(global_batch), "divergence");
}

void SparseVaePart::AddDistances(ForwardContext& context,
                                 const ShardedVariable& values,
                                 const Tensor& features, const Tensor& kinds,
                                 int64_t global_batch) const {
  const Tensor targets = In(features, dtype_);
  const auto add = [&](const TokenKinds& counted, double weight,
                       const char* name) {
    if (weight == 0) return;
    AddLoss(context,
            SetLoss(context, values, targets, kinds, counted, config_.limit),
            weight / static_cast<double>(global_batch), name);
  };
  add({kVoxelNear, kVoxelAtEdge}, 1, kObjectiveLoss);
  add({kVoxelAtEdge, kVoxelAtEdge}, config_.edges, "edges");
  add({kVoxelBeside, kVoxelBeside}, config_.beside, "beside");
}

}  // namespace trireme
