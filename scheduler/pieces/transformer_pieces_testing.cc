#include "scheduler/pieces/transformer_pieces_testing.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace trireme {
namespace {

using Kind = PieceCollective::Kind;
using Group = PieceCollective::Group;
using Behind = PieceCollective::Behind;

// Tokens of one sample on one rank of a block, padding included: where channels
// are sharded over tp, and between those layers, where sequence parallelism
// shards tokens instead. Every rank of cp holds the whole text.
struct RankTokens {
  int64_t image = 0;
  int64_t image_between = 0;
  int64_t text = 0;
  int64_t text_between = 0;
};

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

// Of attention's products of queries with keys and of weights with values, over
// one sample.
double AttentionFlops(const ModelShape& model) {
  const auto n = static_cast<double>(model.text_tokens);
  const auto s = static_cast<double>(model.tokens);
  const bool joint = model.text == ModelShape::Text::kJoint;
  const bool cross = model.text == ModelShape::Text::kCross;
  const double queries = joint ? s + n : s;
  return 4 * queries * (queries + (cross ? n : 0)) *
         static_cast<double>(model.hidden);
}

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

int64_t ToBytes(double bytes) { return std::llround(bytes); }

// Of a modulated block and of a modulated head.
constexpr int64_t kBlockModulations = 6;
constexpr int64_t kHeadModulations = 2;
// Partial attention and gradient sums travel unrounded (fp64 in fp64 models).
int64_t UnroundedBytes(const ModelShape& model) {
  return std::max<int64_t>(4, model.element_bytes);
}

class Collectives {
 public:
  Collectives(const ModelShape& model, bool conditioned,
              const BlockSplit& split)
      : model_(model),
        conditioned_(conditioned),
        split_(split),
        tokens_(TokensOnRank(model, split)),
        products_(BlockFlops(model) - AttentionFlops(model)) {}

  void AddBlock() {
    AddStream(tokens_.image, model_.tokens, split_.sequence_parallel);
    if (model_.text == ModelShape::Text::kJoint) {
      AddStream(tokens_.text, model_.text_tokens, split_.sequence_parallel);
    }
    if (model_.text == ModelShape::Text::kCross) AddCrossAttention();
    AddContext();
  }

  void AddEmbedding() {
    if (!conditioned_) return;
    // Conditioning is used by every rank: its gradients are summed here.
    const int64_t conditioning = Bytes(1, model_.hidden);
    if (split_.tp > 1)
      Add({Group::kTensor, Kind::kAllReduce, conditioning, 0, 1});
    if (split_.cp == 1) return;
    Add({Group::kContext, Kind::kAllReduce, conditioning, 0, 1});
    if (model_.text_tokens > 0) {
      Add({Group::kContext, Kind::kAllReduce,
           Bytes(tokens_.text_between, model_.hidden), 0, 1});
    }
  }

  void AddHead() { AddModulation(kHeadModulations); }

  std::vector<PieceCollective> Take() { return std::move(list_); }

 private:
  // Of [microbatch, tokens, width].
  int64_t Bytes(int64_t tokens, int64_t width) const {
    return split_.microbatch_size * tokens * width * model_.element_bytes;
  }

  void Add(const PieceCollective& collective) {
    if (collective.forward + collective.backward > 0) {
      list_.push_back(collective);
    }
  }

  // Columns over tp, gathered; each rank's gradient is of its own tokens under
  // sequence parallelism, else they are all the same.
  void AddModulation(int64_t parts) {
    if (split_.tp == 1 || !conditioned_) return;
    const int64_t bytes = Bytes(1, parts * model_.hidden);
    Add({Group::kTensor, Kind::kAllGather, bytes, 1, 0});
    if (split_.sequence_parallel) {
      Add({Group::kTensor, Kind::kReduceScatter, bytes, 0, 1});
    }
  }

  // Of a column-parallel layer on `tokens`, whose product takes `flops`.
  void AddColumns(int64_t tokens, double flops, bool sharded) {
    if (split_.tp == 1) return;
    const int64_t bytes = Bytes(tokens, model_.hidden);
    if (!sharded) {
      Add({Group::kTensor, Kind::kAllReduce, bytes, 0, 1, Behind::kProduct,
           flops / products_});
      return;
    }
    // The input is kept in shards and gathered once more.
    Add({Group::kTensor, Kind::kAllGather, bytes, 1, 0});
    Add({Group::kTensor, Kind::kAllGather, bytes, 0, 1, Behind::kProduct,
         flops / products_, /*for_weight_gradient=*/true});
    Add({Group::kTensor, Kind::kReduceScatter, bytes, 0, 1, Behind::kProduct,
         flops / products_});
  }

  // Of a row-parallel layer.
  void AddRows(int64_t tokens, bool sharded) {
    if (split_.tp == 1) return;
    const int64_t bytes = Bytes(tokens, model_.hidden);
    if (!sharded) {
      Add({Group::kTensor, Kind::kAllReduce, bytes, 1, 0});
      return;
    }
    Add({Group::kTensor, Kind::kReduceScatter, bytes, 1, 0});
    Add({Group::kTensor, Kind::kAllGather, bytes, 0, 1});
  }

  // `tokens`: of one rank, where channels are sharded.
  void AddStream(int64_t tokens, int64_t all_tokens, bool sharded) {
    const auto s = static_cast<double>(all_tokens);
    const auto h = static_cast<double>(model_.hidden);
    AddModulation(kBlockModulations);
    AddColumns(tokens, 6 * s * h * h, sharded);  // queries, keys, values
    AddRows(tokens, sharded);
    AddColumns(tokens, 2 * s * h * static_cast<double>(model_.mlp_hidden),
               sharded);
    AddRows(tokens, sharded);
  }

  void AddCrossAttention() {
    const auto h = static_cast<double>(model_.hidden);
    AddColumns(tokens_.image, 2 * static_cast<double>(model_.tokens) * h * h,
               split_.sequence_parallel);
    // Every rank holds the whole text.
    AddColumns(tokens_.text,
               4 * static_cast<double>(model_.text_tokens) * h * h,
               /*sharded=*/false);
    AddRows(tokens_.image, split_.sequence_parallel);
  }

  void AddContext() {
    if (split_.cp == 1) return;
    const int64_t width = model_.hidden / split_.tp;
    const int64_t heads_width = width / split_.ulysses;
    const bool joint = model_.text == ModelShape::Text::kJoint;
    if (split_.ulysses > 1) {
      const int64_t tokens = Bytes(tokens_.image, width);
      Add({Group::kHeads, Kind::kAllToAll, 3 * tokens, 1, 1});
      Add({Group::kHeads, Kind::kAllToAll, tokens, 1, 1});
      if (joint) {
        Add({Group::kHeads, Kind::kAllGather, Bytes(tokens_.text, width), 1,
             0});
      }
    }
    if (joint) {
      // Each rank's text output goes on with its own image tokens.
      Add({Group::kContext, Kind::kAllReduce, Bytes(tokens_.text, width), 0,
           1});
    }
    const auto ranks = static_cast<int32_t>(split_.cp / split_.ulysses);
    if (ranks == 1) return;
    const int64_t elements = 2 * split_.microbatch_size * tokens_.image *
                             split_.ulysses * heads_width;
    const int64_t unrounded = UnroundedBytes(model_);
    Add({Group::kRing, Kind::kRingStep, elements * model_.element_bytes,
         ranks - 1, ranks - 1, Behind::kAttention});
    Add({Group::kRing, Kind::kRingStep, elements * unrounded, 0, ranks - 1,
         Behind::kAttention});
    // The sums go home when nothing is left to compute.
    Add({Group::kRing, Kind::kRingStep, elements * unrounded, 0, 1});
    if (joint) {
      const int64_t rows = split_.microbatch_size * tokens_.text;
      const int64_t heads = model_.heads / split_.tp / split_.ulysses;
      Add({Group::kRing, Kind::kAllGather,
           ranks * rows * (heads_width + heads) * unrounded, 1, 0,
           Behind::kAttention});
    }
  }

  const ModelShape& model_;
  // A vector for each sample modulates every block.
  const bool conditioned_;
  const BlockSplit& split_;
  const RankTokens tokens_;
  // FLOPs over one sample on all ranks.
  const double products_;
  std::vector<PieceCollective> list_;
};

// Of the products with weights of one microbatch on one rank.
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

// Parameters of a block on one rank: matrices are sharded over tp, norms not.
int64_t BlockParametersPerRank(const ModelShape& model,
                               const TransformerParts& parts, int64_t tp) {
  const int64_t h = model.hidden;
  int64_t sharded = 4 * h * h + 2 * h * model.mlp_hidden +
                    parts.modulation_parameters + 3 * h + model.mlp_hidden;
  int64_t whole = 2 * h;
  if (model.text == ModelShape::Text::kCross) sharded += 4 * h * h;
  if (model.text == ModelShape::Text::kJoint) sharded *= 2;
  // Two norms with scale and shift, where modulation does not replace them.
  if (parts.modulation_parameters == 0) whole += 4 * h;
  return (sharded + tp - 1) / tp + whole;
}

// What one block's element-wise kernels read and write in one forward of a
// microbatch on one rank.
double ElementwiseBytes(const ModelShape& model, const TransformerParts& parts,
                        const BlockSplit& split) {
  // In units of one [tokens, h] activation, reads and writes: two norms 2 each
  // (modulation rides along), two residual sums 3 each (gates ride along) ...
  const double outside = 4 + 6;
  // ... queries, keys, values and output in and out of attention's layout 8,
  // and the activation function.
  const double inside = 8 + 2 * MlpRatio(model) + (parts.qk_norm ? 4 : 0);
  const Unit unit = UnitOf(model, split);
  return (outside * unit.outside + inside * unit.inside) *
         static_cast<double>(model.element_bytes);
}

// Activations that one block keeps from forward to backward, per microbatch and
// rank.
int64_t ActivationBytes(const ModelShape& model, const TransformerParts& parts,
                        const BlockSplit& split, Plan::Recompute recompute) {
  const Unit unit = UnitOf(model, split);
  const auto e = static_cast<double>(model.element_bytes);
  if (recompute == Plan::FULL) return ToBytes(unit.outside * e);
  const bool selective = recompute == Plan::SELECTIVE;
  const double ratio = MlpRatio(model);
  const bool modulated = parts.modulation_parameters > 0;
  // Inputs of the two norms, of attention and of the MLP; with modulation also
  // what the two gates multiply. SELECTIVE drops the norms' outputs.
  double outside = (selective ? 2 : 4) + (modulated ? 2 : 0);
  // Queries, keys, values, attention's output; the activation function's input
  // and output, of which SELECTIVE drops the latter.
  double inside = 4 + (selective ? 1 : 2) * ratio + (parts.qk_norm ? 2 : 0);
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

// Of those, what the weight gradients still need after the input gradients.
int64_t DeferredWeightBytes(const ModelShape& model, const BlockSplit& split) {
  // Input and output gradient of the four matrix products: attention in (1 and
  // 3), out (1 and 1), MLP in (1 and r), out (r and 1).
  const Unit unit = UnitOf(model, split);
  const double elements =
      4 * unit.outside + (4 + 2 * MlpRatio(model)) * unit.inside;
  return ToBytes(elements * static_cast<double>(model.element_bytes));
}

// The hidden states of one microbatch as they lie on one rank between blocks.
int64_t BoundaryBytes(const ModelShape& model, const BlockSplit& split) {
  return ToBytes(UnitOf(model, split).outside *
                 static_cast<double>(model.element_bytes));
}

// The message from stage to stage: the hidden states and, where the model has
// them, the conditioning and the text.
int64_t MessageBytes(const ModelShape& model, const TransformerParts& parts,
                     const BlockSplit& split) {
  const RankTokens tokens = TokensOnRank(model, split);
  int64_t rows = tokens.image_between;
  if (parts.modulation_parameters > 0) ++rows;
  if (model.text != ModelShape::Text::kNone) rows += tokens.text_between;
  return split.microbatch_size * rows * model.hidden * model.element_bytes;
}

// What element-wise backwards move relative to their forwards: norms and
// activation functions read two tensors and write one, sums only pass gradients
// on, a softmax reads two.
constexpr double kBackwardElementwise = 1.5;

// Kernels of a block's forward that only read and write: two norms, two
// residual sums, an activation function, positions. Their bytes are taken to be
// alike.
constexpr int32_t kBlockKernels = 6;
// Of the embedding's, and of the head's: conditioning, norm, loss.
constexpr int32_t kEndKernels = 3;

PieceKernel Product(double flops, int32_t count = 1) {
  return {.kind = PieceKernel::Kind::kProduct, .flops = flops, .count = count};
}

PieceKernel Attention(double flops) {
  return {.kind = PieceKernel::Kind::kAttention, .flops = flops};
}

// That move `bytes` together.
PieceKernel Elementwise(int32_t count, double bytes) {
  return {.bytes = bytes / count, .count = count};
}

PieceKernels BlockKernels(const ModelShape& model, const BlockSplit& split,
                          double moved, Plan::Recompute recompute) {
  const auto h = static_cast<double>(model.hidden);
  const auto m = static_cast<double>(model.mlp_hidden);
  // Queries, keys and values in one product, attention's output, and the MLP's
  // two. Those of text are shared out among them.
  const double all = ProductFlopsOnRank(model, split) / (4 * h + 2 * m);
  const double attention = AttentionFlopsOnRank(model, split);
  PieceKernels kernels;
  for (const double width : {3 * h, h, m, m}) {
    kernels.forward.push_back(Product(width * all));
  }
  // A backward has two products for each of the forward's, as large.
  kernels.backward_input = kernels.forward;
  kernels.backward_weight = kernels.forward;
  kernels.forward.push_back(Attention(attention));
  kernels.forward.push_back(Elementwise(kBlockKernels, moved));
  kernels.backward_input.push_back(Attention(2 * attention));
  kernels.backward_input.push_back(
      Elementwise(kBlockKernels, kBackwardElementwise * moved));
  if (recompute == Plan::FULL) {
    kernels.backward_input.insert(kernels.backward_input.end(),
                                  kernels.forward.begin(),
                                  kernels.forward.end());
  } else if (recompute == Plan::SELECTIVE) {
    // Norms and the activation function: half of what a forward moves.
    kernels.backward_input.push_back(Elementwise(kBlockKernels / 2, moved / 2));
  }
  return kernels;
}

PieceKernels EndKernels(const ModelShape& model, const BlockSplit& split,
                        double flops) {
  const double share = static_cast<double>(split.microbatch_size) /
                       static_cast<double>(split.tp * split.cp);
  const double moved = 2.0 * static_cast<double>(BoundaryBytes(model, split));
  return {.forward = {Product(flops * share), Elementwise(kEndKernels, moved)},
          .backward_input = {Product(flops * share, 2),
                             Elementwise(2 * kEndKernels, 2 * moved)},
          .backward_weight = {}};
}

}  // namespace

double BlockFlops(const ModelShape& model) {
  const auto h = static_cast<double>(model.hidden);
  const auto f = static_cast<double>(model.mlp_hidden);
  const auto n = static_cast<double>(model.text_tokens);
  const auto s = static_cast<double>(model.tokens);
  const double rows = model.text == ModelShape::Text::kJoint ? s + n : s;
  // Query and output projections, keys and values, MLP.
  double flops = 8 * rows * h * h + 4 * rows * h * f;
  if (model.text == ModelShape::Text::kCross) flops += 4 * (rows + n) * h * h;
  return flops + AttentionFlops(model);
}

ModelPieces TransformerPieces(const ModelShape& model,
                              const TransformerParts& parts,
                              const BlockSplit& split,
                              Plan::Recompute recompute) {
  const auto collectives = [&](void (Collectives::*add)()) {
    Collectives list(model, parts.modulation_parameters > 0, split);
    (list.*add)();
    return list.Take();
  };
  const int64_t boundary = BoundaryBytes(model, split);
  // Gradients inside one block, what it computes again, and whole tensors on
  // both sides of a gather.
  int64_t transient = DeferredWeightBytes(model, split) +
                      ActivationBytes(model, parts, split, Plan::NONE) -
                      ActivationBytes(model, parts, split, recompute);
  if (split.sequence_parallel) {
    BlockSplit whole = split;
    whole.sequence_parallel = false;
    transient += 2 * BoundaryBytes(model, whole);
  }
  ModelPieces pieces;
  pieces.blocks.assign(
      NumBlockKinds(model),
      {.parameters = BlockParametersPerRank(model, parts, split.tp),
       .activation_bytes = ActivationBytes(model, parts, split, recompute),
       .deferred_bytes = DeferredWeightBytes(model, split),
       .transient_bytes = transient,
       .message_bytes = MessageBytes(model, parts, split),
       .kernels = BlockKernels(
           model, split, ElementwiseBytes(model, parts, split), recompute),
       .collectives = collectives(&Collectives::AddBlock)});
  pieces.embedding = {
      .parameters = CeilDivide(parts.embedding_parameters, split.tp),
      .activation_bytes = boundary,
      .kernels = EndKernels(model, split, parts.embedding_flops),
      .collectives = collectives(&Collectives::AddEmbedding)};
  // Input of the last norm and of the head.
  pieces.head = {.parameters = CeilDivide(parts.head_parameters, split.tp),
                 .activation_bytes = 2 * boundary,
                 .transient_bytes = transient,
                 .kernels = EndKernels(model, split, parts.head_flops),
                 .collectives = collectives(&Collectives::AddHead)};
  return pieces;
}

PieceSource PiecesByFormulas(const TransformerParts& parts) {
  return [parts](const ModelShape& model, const BlockSplit& split,
                 Plan::Recompute recompute, bool /*deferred*/) {
    return TransformerPieces(model, parts, split, recompute);
  };
}

int64_t ModelParameters(const ModelShape& model) {
  const ModelPieces pieces = PiecesOf(model, {}, Plan::NONE, false);
  int64_t parameters = pieces.embedding.parameters + pieces.head.parameters;
  for (const BlockRun& run : BlockRunsOf(model)) {
    parameters += run.count * pieces.blocks[run.kind].parameters;
  }
  return parameters;
}

}  // namespace trireme
