#include "models/shape_vae/shape_vae.h"

#include <array>
#include <utility>

#include "fmt/format.h"
#include "models/objective/objective.h"
#include "models/shape_vae/fourier_features.h"
#include "parallel/grid/transitions.h"
#include "parallel/layers/autoencoder_functional.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/distance_loss.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/random.h"

namespace trireme {
namespace {

constexpr int64_t kCoordinates = 3;
constexpr int64_t kSurfaceColumns = 6;

Tensor In(const Tensor& x, DType dtype) {
  return x.dtype() == dtype ? x : Cast(x, dtype);
}

ShardedVariable ToStates(ForwardContext& context, ShardedVariable x,
                         const AxisStates& states) {
  for (const Axis axis : {Axis::kContext, Axis::kTensor}) {
    x = Transition(context, x, axis, states[axis]);
  }
  return x;
}

// Of a query itself, and of a step to each of its sides.
std::vector<double> Offsets(double step) {
  std::vector<double> offsets(kDifferenceEvaluations * kCoordinates, 0.0);
  for (int axis = 0; axis < kCoordinates; ++axis) {
    offsets[(1 + 2 * axis) * kCoordinates + axis] = step;
    offsets[(2 + 2 * axis) * kCoordinates + axis] = -step;
  }
  return offsets;
}

}  // namespace

struct ShapeVaePart::Embedding {
  ReplicatedLinear points;
  ShapeVaeBlock cross;
};

struct ShapeVaePart::Bottleneck {
  AffineNorm norm;
  ReplicatedLinear moments;
  ReplicatedLinear latents;
};

struct ShapeVaePart::Ending {
  ReplicatedLinear queries;
  ShapeVaeBlock cross;
  AffineNorm norm;
  ReplicatedLinear linear;
};

ShapeVaePart::ShapeVaePart(ParameterStore& store, const ProcessGrid& grid,
                           const ShapeVaeConfig& config,
                           const ChunkRequest& request)
    : config_(config),
      request_(request),
      device_(store.device()),
      dtype_(store.dtype()),
      noise_seed_(store.seed() ^ StableHash("latents")),
      layout_(grid, config.latents, /*text_tokens=*/0,
              request.sequence_parallel, /*text_stream=*/false),
      queries_(LayOutTokens(config.queries, grid, /*over_context=*/true,
                            request.sequence_parallel)) {
  const Keep keep = request.recompute.kind == BlockRecompute::Kind::kSelective
                        ? Keep::kRecipe
                        : Keep::kValue;
  const int64_t encoder = config.encoder_hidden;
  const int64_t decoder = config.decoder_hidden;
  if (request.has_embedding()) {
    store.BeginUnit();
    embedding_ = std::make_shared<Embedding>(Embedding{
        ReplicatedLinear(store, "point_embedding", config.point_channels(),
                         encoder),
        ShapeVaeBlock(
            store, grid, "encoder_cross",
            {.hidden = encoder, .heads = config.heads, .context = encoder},
            keep)});
  }
  for (int64_t i = request.blocks.first; i < request.blocks.end; ++i) {
    store.BeginUnit();
    if (i == config.encoder_layers) {
      bottleneck_ = std::make_shared<Bottleneck>(
          Bottleneck{AffineNorm(store, "moments.norm", encoder),
                     ReplicatedLinear(store, "moments.linear", encoder,
                                      2 * config.channels),
                     ReplicatedLinear(store, "latent_embedding",
                                      config.channels, decoder)});
    }
    blocks_.push_back(std::make_unique<ShapeVaeBlock>(
        store, grid, fmt::format("blocks.{}", i),
        ShapeVaeBlockSizes{.hidden = config.hidden(i), .heads = config.heads},
        keep));
  }
  if (request.has_head(config.layers())) {
    store.BeginUnit();
    head_ = std::make_shared<Ending>(Ending{
        ReplicatedLinear(store, "query_embedding", config.position_channels(),
                         decoder),
        ShapeVaeBlock(
            store, grid, "decoder_cross",
            {.hidden = decoder, .heads = config.heads, .context = decoder},
            keep),
        AffineNorm(store, "final.norm", decoder),
        ReplicatedLinear(store, "final.linear", decoder, 1)});
  }
}

std::vector<BoundarySpec> ShapeVaePart::Boundary(int block, int64_t b) const {
  const int64_t index = index_of(block);
  // What comes into the decoder's first block is the encoder's.
  const int64_t hidden = index <= config_.encoder_layers
                             ? config_.encoder_hidden
                             : config_.decoder_hidden;
  return {{{b, layout_.tokens().local.count, hidden},
           dtype_,
           layout_.TokenStates()}};
}

ShapeVaeKeys ShapeVaePart::LatentKeys(int64_t b) const {
  ShapeVaeKeys keys = {.tokens = layout_.tokens(),
                       .context_parallel = layout_.context_parallel(),
                       .counts = {}};
  if (keys.tokens.has_padding()) {
    keys.counts = Full(device_, {b}, DType::kInt32,
                       static_cast<double>(keys.tokens.tokens));
  }
  return keys;
}

ShardedVariable ShapeVaePart::Spread(ForwardContext& context,
                                     const ShardedVariable& whole) const {
  const TokenLayout& tokens = layout_.tokens();
  ShardedVariable x = whole;
  if (tokens.has_padding()) {
    const Tensor& values = whole.value();
    x = ConcatTokens(
        context, x,
        BatchConstant(Tensor::Zeros(
            device_,
            {values.dim(0), tokens.padded - tokens.tokens, values.dim(2)},
            values.dtype())));
  }
  return ToStates(context, x, layout_.TokenStates());
}

ShardedVariable ShapeVaePart::Embed(ForwardContext& context,
                                    const Tensor& surface) const {
  CHECK(has_embedding());
  CHECK_EQ(surface.dim(2), kSurfaceColumns);
  const int64_t b = surface.dim(0), n = surface.dim(1);
  const Tensor rows = surface.Reshape({b * n, kSurfaceColumns});
  const Tensor features = FourierFeatures(
      In(CopySlice(rows, 1, 0, kCoordinates), ComputeDType(dtype_)),
      config_.frequencies, config_.point_channels(), dtype_);
  WriteSlice(In(CopySlice(rows, 1, kCoordinates, kSurfaceColumns), dtype_), 1,
             config_.position_channels(), features);
  const ShardedVariable points = embedding_->points.Forward(
      context,
      BatchConstant(features.Reshape({b, n, config_.point_channels()})));
  const ShardedVariable apart =
      Spread(context, SliceTokens(context, points, 0, config_.latents));
  const ShardedVariable all = Transition(context, points, Axis::kContext,
                                         layout_.TextStates()[Axis::kContext]);
  return embedding_->cross.Forward(context, ShapeVaeKeys(), apart, &all);
}

ShardedVariable ShapeVaePart::RunBlock(ForwardContext& context, int block,
                                       const ShardedVariable& x) const {
  return blocks_[block]->Forward(context, LatentKeys(x.value().dim(0)), x,
                                 nullptr);
}

ShardedVariable ShapeVaePart::Moments(ForwardContext& context,
                                      const ShardedVariable& x) const {
  CHECK(bottleneck_ != nullptr);
  return MaskTokens(context,
                    bottleneck_->moments.Forward(
                        context, bottleneck_->norm.Forward(context, x)),
                    layout_.tokens().valid_local());
}

ShardedVariable ShapeVaePart::EmbedLatents(ForwardContext& context,
                                           const ShardedVariable& z) const {
  CHECK(bottleneck_ != nullptr);
  return bottleneck_->latents.Forward(context, z);
}

Tensor ShapeVaePart::Noise(std::span<const uint64_t> samples,
                           int64_t step) const {
  const TokenLayout& tokens = layout_.tokens();
  const int64_t channels = config_.channels, local = tokens.local.count;
  const Tensor noise = Tensor::Zeros(
      device_, {static_cast<int64_t>(samples.size()), local, channels}, dtype_,
      MemoryCategory::kActivations, "noise of latents");
  for (size_t i = 0; i < samples.size(); ++i) {
    const std::array<ElementRun, 1> run = {
        {{.from = tokens.local.begin * channels,
          .to = static_cast<int64_t>(i) * local * channels,
          .count = tokens.valid_local() * channels}}};
    FillRandom(RandomStream({.seed = noise_seed_,
                             .step = static_cast<uint64_t>(step),
                             .sample = samples[i],
                             .purpose = RandomPurpose::kNoise}),
               Distribution::kNormal, 1, run, noise);
  }
  return noise;
}

ShardedVariable ShapeVaePart::LocalLatents(const Tensor& z) const {
  return {Variable(LocalTokens(z, layout_.tokens())), layout_.TokenStates()};
}

Tensor ShapeVaePart::LocalQueries(const Tensor& queries) const {
  return LocalTokens(In(queries, ComputeDType(dtype_)), queries_);
}

ShardedVariable ShapeVaePart::ValuesAt(ForwardContext& context,
                                       const ShardedVariable& x,
                                       const Tensor& positions,
                                       int64_t rows) const {
  CHECK(has_head());
  const int64_t b = x.value().dim(0);
  const int64_t width = config_.position_channels();
  const ShardedVariable seen = {
      Variable(FourierFeatures(positions, config_.frequencies, width, dtype_)
                   .Reshape({b, rows, width})),
      layout_.TokenStates()};
  // What was cut over cp first, then over tp, is put together the other way
  // round, so that padding is at the end.
  ShardedVariable latents = x;
  if (x.states[Axis::kTensor].kind == AxisState::Kind::kShard) {
    latents =
        Transition(context, latents, Axis::kTensor, AxisState::Replicate());
  }
  latents = Transition(context, latents, Axis::kContext,
                       layout_.TextStates()[Axis::kContext]);
  const ShardedVariable y = head_->cross.Forward(
      context, LatentKeys(b), head_->queries.Forward(context, seen), &latents);
  return head_->linear.Forward(context, head_->norm.Forward(context, y));
}

ShardedVariable ShapeVaePart::Values(ForwardContext& context,
                                     const ShardedVariable& x,
                                     const Tensor& local_queries,
                                     bool with_sides) const {
  const int64_t b = local_queries.dim(0), local = local_queries.dim(1);
  const int64_t evaluations = with_sides ? kDifferenceEvaluations : 1;
  Tensor positions = CopySlice(
      local_queries.Reshape({b * local, kQueryColumns}), 1, 0, kCoordinates);
  if (with_sides) {
    const Tensor offsets =
        In(Tensor::FromValues<double>(device_,
                                      {kDifferenceEvaluations, kCoordinates},
                                      Offsets(config_.losses.difference_step)),
           positions.dtype());
    positions =
        AddBroadcast(RepeatOverTokens(positions, kDifferenceEvaluations),
                     offsets)
            .Reshape({b * local * evaluations, kCoordinates});
  }
  const ShardedVariable values =
      ValuesAt(context, x, positions, local * evaluations);
  return {Reshape(context.tape, values.variable, {b, local, evaluations}),
          values.states};
}

void ShapeVaePart::AddDivergence(ForwardContext& context,
                                 const ShardedVariable& moments,
                                 int64_t global_batch) const {
  const int64_t elements = global_batch * config_.latents * config_.channels;
  AddLoss(context, GaussianDivergence(context, moments),
          config_.losses.divergence / static_cast<double>(elements),
          "divergence");
}

void ShapeVaePart::AddDistances(ForwardContext& context,
                                const ShardedVariable& values,
                                const Tensor& local_queries,
                                int64_t global_batch) const {
  const ShapeVaeLosses& losses = config_.losses;
  const double of_query =
      1.0 / static_cast<double>(global_batch * config_.queries);
  const DistanceComparison comparison = {.values = values.value(),
                                         .queries = local_queries,
                                         .valid = queries_.valid_local(),
                                         .step = losses.difference_step,
                                         .truncation = losses.truncation};
  const auto add = [&](DistanceTerm term, double weight, const char* name) {
    if (weight == 0) return;
    AddLoss(context, DistanceLoss(context, term, values, comparison),
            weight * of_query, name);
  };
  add(losses.occupancy ? DistanceTerm::kOccupancy : DistanceTerm::kDistance, 1,
      kObjectiveLoss);
  add(DistanceTerm::kNormal, losses.normal, "normal");
  add(DistanceTerm::kEikonal, losses.eikonal, "eikonal");
}

}  // namespace trireme
