#include "scheduler/pieces/model_shape.h"

#include <cmath>
#include <string_view>
#include <utility>

#include "runtime/core/status.h"

namespace trireme {
namespace {

// Elements of one [tokens, h] activation of a microbatch on one rank, as it
// lies between the tensor-parallel layers, and inside them.
struct Unit {
  double outside = 0;
  double inside = 0;
};

Unit UnitOf(const ModelShape& model, const BlockSplit& split) {
  RankTokens tokens = TokensOnRank(model, split);
  if (model.text == ModelShape::Text::kJoint) {
    tokens.image += tokens.text;
    tokens.image_between += tokens.text_between;
  }
  const auto elements = [&](int64_t count) {
    return static_cast<double>(count * split.microbatch_size * model.hidden);
  };
  return {.outside = elements(tokens.image_between),
          .inside = elements(tokens.image) / static_cast<double>(split.tp)};
}

double MlpRatio(const ModelShape& model) {
  return static_cast<double>(model.mlp_hidden) /
         static_cast<double>(model.hidden);
}

TransformerSizes SizesOf(const ModelShape& model) {
  return {.layers = model.layers,
          .hidden = model.hidden,
          .mlp_hidden = model.mlp_hidden,
          .tokens = model.tokens,
          .text_tokens = model.text_tokens,
          .text = model.text};
}

int64_t ToBytes(double bytes) { return std::llround(bytes); }

}  // namespace

absl::Status CheckModelShape(const ModelShape& model) {
  static constexpr int64_t kMax = int64_t{1} << 31;
  auto check = [](std::string_view field, int64_t value, int64_t least) {
    if (value >= least && value <= kMax) return absl::OkStatus();
    return InvalidArgument("model.{}: found {}, expected {} to {}", field,
                           value, least, kMax);
  };
  RETURN_IF_ERROR(check("layers", model.layers, 1));
  RETURN_IF_ERROR(check("hidden", model.hidden, 1));
  RETURN_IF_ERROR(check("mlp_hidden", model.mlp_hidden, 1));
  RETURN_IF_ERROR(check("heads", model.heads, 1));
  RETURN_IF_ERROR(check("tokens", model.tokens, 1));
  RETURN_IF_ERROR(check("text_tokens", model.text_tokens, 0));
  if (model.element_bytes != 2 && model.element_bytes != 4 &&
      model.element_bytes != 8) {
    return InvalidArgument(
        "model.element_bytes: found {}, expected 2, 4 or 8 (a job's precision "
        "BF16, FP16, FP32 or FP64)",
        model.element_bytes);
  }
  for (size_t i = 0; i < model.measured.size(); ++i) {
    const MeasuredPiece& piece = model.measured[i];
    for (const double seconds : {piece.forward_s, piece.backward_s}) {
      if (!(seconds > 0) || !std::isfinite(seconds)) {
        return InvalidArgument(
            "model.measured[{}]: found {} seconds, expected a positive number",
            i, seconds);
      }
    }
  }
  return absl::OkStatus();
}

int64_t SequenceLength(const ModelShape& model) {
  return model.tokens +
         (model.text == ModelShape::Text::kJoint ? model.text_tokens : 0);
}

BlockSplit SplitOf(const Plan& plan) {
  return {.tp = plan.grid().tp(),
          .cp = plan.grid().cp(),
          .ulysses = plan.ulysses(),
          .sequence_parallel = plan.sequence_parallel(),
          .microbatch_size = plan.microbatch_size()};
}

RankTokens TokensOnRank(const ModelShape& model, const BlockSplit& split) {
  const int64_t shards = split.sequence_parallel ? split.tp : 1;
  RankTokens tokens;
  tokens.image_between = CeilDivide(model.tokens, split.cp * shards);
  tokens.image = tokens.image_between * shards;
  const bool joint = model.text == ModelShape::Text::kJoint;
  const int64_t text_shards = joint ? shards : 1;
  tokens.text_between = CeilDivide(model.text_tokens, text_shards);
  tokens.text = tokens.text_between * text_shards;
  return tokens;
}

bool HasConditioning(const ModelShape& model) {
  return model.modulation_parameters > 0;
}

double AttentionFlops(const ModelShape& model) {
  return AttentionForwardFlops(SizesOf(model));
}

double BlockFlops(const ModelShape& model) {
  return BlockForwardFlops(SizesOf(model));
}

double ProductFlopsOnRank(const ModelShape& model, const BlockSplit& split) {
  const auto h = static_cast<double>(model.hidden);
  const auto n = static_cast<double>(model.text_tokens);
  double text = 0;  // on every rank of cp
  if (model.text == ModelShape::Text::kCross) text = 4 * n * h * h;
  if (model.text == ModelShape::Text::kJoint) {
    text = n * (8 * h * h + 4 * h * static_cast<double>(model.mlp_hidden));
  }
  const double image = BlockFlops(model) - AttentionFlops(model) - text;
  return (image / static_cast<double>(split.cp) + text) *
         static_cast<double>(split.microbatch_size) /
         static_cast<double>(split.tp);
}

double AttentionFlopsOnRank(const ModelShape& model, const BlockSplit& split) {
  return AttentionFlops(model) * static_cast<double>(split.microbatch_size) /
         static_cast<double>(split.tp * split.cp);
}

int64_t BlockParametersPerRank(const ModelShape& model, int64_t tp) {
  const int64_t h = model.hidden;
  int64_t sharded = 4 * h * h + 2 * h * model.mlp_hidden +
                    model.modulation_parameters + 3 * h + model.mlp_hidden;
  int64_t whole = 2 * h;
  if (model.text == ModelShape::Text::kCross) sharded += 4 * h * h;
  if (model.text == ModelShape::Text::kJoint) sharded *= 2;
  // Two norms with scale and shift, where modulation does not replace them.
  if (model.modulation_parameters == 0) whole += 4 * h;
  return (sharded + tp - 1) / tp + whole;
}

int64_t BlockParameters(const ModelShape& model) {
  return BlockParametersPerRank(model, 1);
}

int64_t ModelParameters(const ModelShape& model) {
  return model.layers * BlockParameters(model) + model.embedding_parameters +
         model.head_parameters;
}

double ModelTrainingFlops(const ModelShape& model) {
  return BlocksTrainingFlops(SizesOf(model));
}

double ElementwiseBytes(const ModelShape& model, const BlockSplit& split) {
  // In units of one [tokens, h] activation, reads and writes: two norms 2 each
  // (modulation rides along), two residual sums 3 each (gates ride along) ...
  const double outside = 4 + 6;
  // ... queries, keys, values and output in and out of attention's layout 8,
  // and the activation function.
  const double inside = 8 + 2 * MlpRatio(model) + (model.qk_norm ? 4 : 0);
  const Unit unit = UnitOf(model, split);
  return (outside * unit.outside + inside * unit.inside) *
         static_cast<double>(model.element_bytes);
}

int64_t ActivationBytes(const ModelShape& model, const BlockSplit& split,
                        Plan::Recompute recompute) {
  const Unit unit = UnitOf(model, split);
  const auto e = static_cast<double>(model.element_bytes);
  if (recompute == Plan::FULL) return ToBytes(unit.outside * e);
  const bool selective = recompute == Plan::SELECTIVE;
  const double ratio = MlpRatio(model);
  const bool modulated = model.modulation_parameters > 0;
  // Inputs of the two norms, of attention and of the MLP; with modulation also
  // what the two gates multiply. SELECTIVE drops the norms' outputs.
  double outside = (selective ? 2 : 4) + (modulated ? 2 : 0);
  // Queries, keys, values, attention's output; the activation function's input
  // and output, of which SELECTIVE drops the latter.
  double inside = 4 + (selective ? 1 : 2) * ratio + (model.qk_norm ? 2 : 0);
  double bytes = (outside * unit.outside + inside * unit.inside) * e;
  if (model.text == ModelShape::Text::kCross) {
    // Normed query input, queries, output and its gate; keys and values.
    const double keys =
        static_cast<double>(model.text_tokens * split.microbatch_size *
                            model.hidden) /
        static_cast<double>(split.tp);
    bytes +=
        e * ((selective ? 1 : 2) * unit.outside + 2 * unit.inside + 2 * keys);
  }
  return ToBytes(bytes);
}

int64_t DeferredWeightBytes(const ModelShape& model, const BlockSplit& split) {
  // Input and output gradient of the four matrix products: attention in (1 and
  // 3), out (1 and 1), MLP in (1 and r), out (r and 1).
  const Unit unit = UnitOf(model, split);
  const double elements =
      4 * unit.outside + (4 + 2 * MlpRatio(model)) * unit.inside;
  return ToBytes(elements * static_cast<double>(model.element_bytes));
}

int64_t BoundaryBytes(const ModelShape& model, const BlockSplit& split) {
  return ToBytes(UnitOf(model, split).outside *
                 static_cast<double>(model.element_bytes));
}

int64_t MessageBytes(const ModelShape& model, const BlockSplit& split) {
  const RankTokens tokens = TokensOnRank(model, split);
  int64_t rows = tokens.image_between;
  if (HasConditioning(model)) ++rows;
  if (model.text != ModelShape::Text::kNone) rows += tokens.text_between;
  return split.microbatch_size * rows * model.hidden * model.element_bytes;
}

}  // namespace trireme
