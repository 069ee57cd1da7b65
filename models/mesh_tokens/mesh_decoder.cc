#include "models/mesh_tokens/mesh_decoder.h"

#include <algorithm>
#include <numeric>
#include <span>

#include "parallel/grid/transitions.h"
#include "runtime/core/log.h"
#include "runtime/ops/copy.h"

namespace trireme {
namespace {

constexpr double kMaxPeriod = 10000.0;
constexpr Initializer kTable = {.kind = Initializer::Kind::kNormal,
                                .stddev = 0.02};

// Rows of a table as tokens of b sequences.
ShardedVariable Rows(ForwardContext& context, Parameter& table,
                     const Tensor& indices, int64_t b) {
  const int64_t count = indices.num_elements();
  const ShardedVariable rows =
      EmbeddingLookup(context, table, indices.Reshape({count}), BatchStates());
  return {
      Reshape(context.tape, rows.variable, {b, count / b, rows.value().dim(1)}),
      rows.states};
}

}  // namespace

struct MeshDecoderPart::Embedding {
  Parameter& token_table;
  Parameter& class_table;
};

struct MeshDecoderPart::Ending {
  AffineNorm norm;
  ReplicatedLinear linear;
};

MeshDecoderPart::MeshDecoderPart(ParameterStore& store, const ProcessGrid& grid,
                                 const MeshDecoderConfig& config,
                                 const ChunkRequest& request)
    : config_(config),
      request_(request),
      device_(store.device()),
      dtype_(store.dtype()),
      layout_(grid, config.tokens, /*text_tokens=*/0, request.sequence_parallel,
              /*text_stream=*/false) {
  const TokenRange range = layout_.tokens().attention;
  places_ = {.rope = RopeOf(range.begin, range.count),
             .tokens = config.tokens,
             .context_parallel = layout_.context_parallel()};
  const int64_t h = config.hidden;
  if (request.has_embedding()) {
    store.BeginUnit();
    Parameter& token_table =
        store.Create("token_embedding.table", {config.vocabulary(), h}, {},
                     kTable, /*decay=*/false);
    embedding_ = std::make_shared<Embedding>(Embedding{
        token_table, store.Create("class_embedding.table",
                                  {std::max<int64_t>(config.classes, 1), h}, {},
                                  kTable, /*decay=*/false)});
  }
  for (int64_t i = request.blocks.first; i < request.blocks.end; ++i) {
    store.BeginUnit();
    blocks_.push_back(std::make_unique<MeshDecoderBlock>(
        store, grid, i, config,
        request.recompute.kind == BlockRecompute::Kind::kSelective
            ? Keep::kRecipe
            : Keep::kValue));
  }
  if (request.has_head(config.layers)) {
    store.BeginUnit();
    head_ = std::make_shared<Ending>(
        Ending{AffineNorm(store, "final.norm", h),
               ReplicatedLinear(
                   store, "final.linear", h, config.vocabulary(),
                   {.initializer = {.kind = Initializer::Kind::kZeros}})});
  }
}

RopeTable MeshDecoderPart::RopeOf(int64_t first, int64_t count) const {
  std::vector<double> positions(count);
  std::iota(positions.begin(), positions.end(), static_cast<double>(first));
  const int64_t dims[1] = {config_.head_dim()};
  return MakeRopeTable(
      device_, dims, positions, kMaxPeriod,
      dtype_ == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32);
}

BoundarySpec MeshDecoderPart::Boundary(int64_t b, bool of_one_token) const {
  if (of_one_token) return {{b, 1, config_.hidden}, dtype_, BatchStates()};
  return {{b, layout_.tokens().local.count, config_.hidden},
          dtype_,
          layout_.TokenStates()};
}

ShardedVariable MeshDecoderPart::Embed(ForwardContext& context,
                                       const Tensor& tokens,
                                       const Tensor& labels) const {
  CHECK(has_embedding());
  const TokenLayout& layout = layout_.tokens();
  const int64_t b = tokens.dim(0);
  // The last token is before none.
  ShardedVariable x = ConcatTokens(
      context, Rows(context, embedding_->class_table, labels, b),
      Rows(context, embedding_->token_table,
           CopySlice(tokens, 1, 0, config_.tokens - 1, "tokens"), b));
  if (layout.has_padding()) {
    x = ConcatTokens(
        context, x,
        BatchConstant(Tensor::Zeros(
            device_, {b, layout.padded - layout.tokens, config_.hidden},
            dtype_)));
  }
  const AxisStates states = layout_.TokenStates();
  for (const Axis axis : {Axis::kContext, Axis::kTensor}) {
    x = Transition(context, x, axis, states[axis]);
  }
  return x;
}

ShardedVariable MeshDecoderPart::RunBlock(ForwardContext& context, int block,
                                          const ShardedVariable& x) const {
  return blocks_[block]->Forward(context, places_, x);
}

ShardedVariable MeshDecoderPart::Head(ForwardContext& context,
                                      const ShardedVariable& x) const {
  CHECK(has_head());
  return head_->linear.Forward(context, head_->norm.Forward(context, x));
}

Tensor MeshDecoderPart::LocalLabels(const Tensor& labels) const {
  const TokenLayout& layout = layout_.tokens();
  const int64_t b = labels.dim(0);
  const Tensor local = Full(device_, {b, layout.local.count}, DType::kInt32, -1,
                            MemoryCategory::kActivations, "local labels");
  CopyStrided(
      {.outer = b,
       .run = layout.valid_local(),
       .from = {.offset = layout.valid_local() > 0 ? layout.local.begin : 0,
                .outer = layout.tokens},
       .to = {.outer = layout.local.count}},
      labels, local);
  return local;
}

ShardedVariable MeshDecoderPart::EmbedOne(ForwardContext& context,
                                          const Tensor& tokens,
                                          const Tensor& labels,
                                          const KeyValueCache& cache) const {
  CHECK(has_embedding());
  const int64_t b = labels.dim(0);
  return cache.position() == 0
             ? Rows(context, embedding_->class_table, labels, b)
             : Rows(context, embedding_->token_table, tokens, b);
}

ShardedVariable MeshDecoderPart::RunBlockOnOne(ForwardContext& context,
                                               int block, KeyValueCache& cache,
                                               const ShardedVariable& x) const {
  return blocks_[block]->Forward(
      context, {.rope = RopeOf(cache.position(), 1), .cache = &cache}, x);
}

}  // namespace trireme
