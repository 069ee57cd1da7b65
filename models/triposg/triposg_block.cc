#include "models/triposg/triposg_block.h"

#include <string_view>

#include "fmt/format.h"
#include "models/transformer/modulated_stream.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

constexpr double kNormEps = 1e-5;
constexpr double kHeadNormEps = 1e-6;

Parameter* HeadNorm(ParameterStore& store, const ProcessGrid& grid,
                    const TriposgConfig& config, const std::string& name) {
  return CreateHeadNorm(
      store, grid, {.hidden = config.hidden, .head_dim = config.head_dim()},
      name);
}

std::string NameOf(int64_t index, std::string_view part) {
  return fmt::format("blocks.{}.{}", index, part);
}

// [skip, x], channel by channel: the two vectors of each token as two tokens of
// a sequence of their own.
Variable ConcatChannels(Tape& tape, const Variable& skip, const Variable& x) {
  const Shape& shape = x.value().shape();
  const int64_t tokens = shape.dim(0) * shape.dim(1), width = shape.dim(2);
  const Variable both =
      ConcatTokens(tape, Reshape(tape, skip, {tokens, 1, width}),
                   Reshape(tape, x, {tokens, 1, width}));
  return Reshape(tape, both, {shape.dim(0), shape.dim(1), 2 * width});
}

}  // namespace

AffineNorm::AffineNorm(ParameterStore& store, const std::string& name,
                       int64_t width)
    : weight(&store.Create(name + ".weight", {width}, {},
                           {.kind = Initializer::Kind::kOnes},
                           /*decay=*/false)),
      bias(&store.Create(name + ".bias", {width}, {},
                         {.kind = Initializer::Kind::kZeros},
                         /*decay=*/false)) {}

ShardedVariable AffineNorm::Forward(ForwardContext& context,
                                    const ShardedVariable& x) const {
  return Norm(context, NormKind::kLayer, x, weight, bias, kNormEps);
}

TriposgBlock::TriposgBlock(ParameterStore& store, const ProcessGrid& grid,
                           int64_t index, const TriposgConfig& config,
                           Keep keep)
    : config_(config),
      keep_(keep),
      skip_(MakeSkip(store, index, config)),
      attention_{
          AffineNorm(store, NameOf(index, "attention.norm"), config.hidden),
          ColumnParallelLinear(store, grid, NameOf(index, "attention.qkv"),
                               config.hidden, 3 * config.hidden,
                               {.parts = 3, .bias = false}),
          HeadNorm(store, grid, config, NameOf(index, "attention.q_norm")),
          HeadNorm(store, grid, config, NameOf(index, "attention.k_norm")),
          RowParallelLinear(store, grid, NameOf(index, "attention.out"),
                            config.hidden, config.hidden)},
      cross_{
          AffineNorm(store, NameOf(index, "cross.norm"), config.hidden),
          ColumnParallelLinear(store, grid, NameOf(index, "cross.q"),
                               config.hidden, config.hidden, {.bias = false}),
          ColumnParallelLinear(store, grid, NameOf(index, "cross.kv"),
                               config.condition_width(), 2 * config.hidden,
                               {.parts = 2, .bias = false}),
          HeadNorm(store, grid, config, NameOf(index, "cross.q_norm")),
          HeadNorm(store, grid, config, NameOf(index, "cross.k_norm")),
          RowParallelLinear(store, grid, NameOf(index, "cross.out"),
                            config.hidden, config.hidden)},
      mlp_norm_(store, NameOf(index, "mlp.norm"), config.hidden) {
  if (config.has_experts(index)) {
    experts_ = std::make_unique<MoeLayer>(store, grid, NameOf(index, "moe"),
                                          config.hidden, *config.moe, keep);
    return;
  }
  mlp_ = std::make_unique<Mlp>(
      Mlp{ColumnParallelLinear(store, grid, NameOf(index, "mlp.in"),
                               config.hidden, config.mlp_hidden()),
          RowParallelLinear(store, grid, NameOf(index, "mlp.out"),
                            config.mlp_hidden(), config.hidden)});
}

std::unique_ptr<TriposgBlock::Skip> TriposgBlock::MakeSkip(
    ParameterStore& store, int64_t index, const TriposgConfig& config) {
  if (!config.has_skip(index)) return nullptr;
  return std::make_unique<Skip>(
      Skip{ReplicatedLinear(store, NameOf(index, "skip.linear"),
                            2 * config.hidden, config.hidden),
           AffineNorm(store, NameOf(index, "skip.norm"), config.hidden)});
}

ShardedVariable TriposgBlock::Join(ForwardContext& context,
                                   const ShardedVariable& skip,
                                   const ShardedVariable& x) const {
  CHECK(skip.states == x.states)
      << skip.states.ToString() << " and " << x.states.ToString();
  const ShardedVariable both = {
      ConcatChannels(context.tape, skip.variable, x.variable), x.states};
  return skip_->norm.Forward(context, skip_->linear.Forward(context, both));
}

ShardedVariable TriposgBlock::Attend(ForwardContext& context,
                                     const TriposgConstants& constants,
                                     const ShardedVariable& x) const {
  const ShardedVariable qkv =
      attention_.qkv.Forward(context, attention_.norm.Forward(context, x));
  const HeadNorms norms = {.q_weight = attention_.q_norm,
                           .k_weight = attention_.k_norm,
                           .eps = kHeadNormEps};
  const int64_t head_dim = config_.head_dim();
  const ShardedVariable attended =
      constants.context_parallel
          ? JointAttention(context, NormHeads(context, qkv, head_dim, norms),
                           nullptr, head_dim,
                           {.valid_tokens = constants.tokens.tokens})
                .image
          : SelfAttention(context, qkv, head_dim, norms,
                          {.key_counts = constants.token_counts});
  return attention_.out.Forward(context, attended);
}

ShardedVariable TriposgBlock::AttendToCondition(
    ForwardContext& context, const TriposgConstants& constants,
    const ShardedVariable& x, const ShardedVariable& condition) const {
  const HeadNorms norms = {.q_weight = cross_.q_norm,
                           .k_weight = cross_.k_norm,
                           .eps = kHeadNormEps};
  const ShardedVariable attended = CrossAttention(
      context, cross_.q.Forward(context, cross_.norm.Forward(context, x)),
      cross_.kv.Forward(context, condition), config_.head_dim(), norms,
      {.key_counts = constants.condition_counts});
  return cross_.out.Forward(context, attended);
}

ShardedVariable TriposgBlock::Forward(ForwardContext& context,
                                      const TriposgConstants& constants,
                                      const ShardedVariable& x,
                                      const ShardedVariable* skip,
                                      const ShardedVariable& condition) const {
  CHECK_EQ(skip != nullptr, skip_ != nullptr);
  ShardedVariable y = skip != nullptr ? Join(context, *skip, x) : x;
  y = Add(context, y, Attend(context, constants, y));
  y = Add(context, y, AttendToCondition(context, constants, y, condition));
  const ShardedVariable n = mlp_norm_.Forward(context, y);
  if (experts_ != nullptr) {
    return Add(context, y, experts_->Forward(context, n, constants.routed));
  }
  return Add(context, y,
             mlp_->out.Forward(context,
                               Activate(context, Activation::kGelu,
                                        mlp_->in.Forward(context, n), keep_)));
}

}  // namespace trireme
