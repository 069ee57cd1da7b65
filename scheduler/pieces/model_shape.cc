#include "scheduler/pieces/model_shape.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "fmt/format.h"
#include "runtime/core/check_range.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
absl::Status CheckModelShape(const ModelShape& model) {
  static constexpr int64_t kMax = int64_t{1} << 31;
  const auto check = [](std::string_view field, int64_t value, int64_t least) {
    return CheckRange(fmt::format("model.{}", field), value, least, kMax);
  };
  RETURN_IF_ERROR(check("layers", model.layers, 1));
  RETURN_IF_ERROR(check("hidden", model.hidden, 1));
  RETURN_IF_ERROR(check("mlp_hidden", model.mlp_hidden, 1));
  RETURN_IF_ERROR(check("heads", model.heads, 1));
  int64_t of_runs = 0;
  for (const BlockRun& run : BlockRunsOf(model)) {
    RETURN_IF_ERROR(check("block_runs.count", run.count, 1));
    RETURN_IF_ERROR(check("block_runs.kind", run.kind, 0));
    of_runs += run.count;
  }
  if (of_runs != model.layers) {
    return InvalidArgument(
        "model.block_runs: found {} blocks, expected model.layers = {}",
        of_runs, model.layers);
  }
  RETURN_IF_ERROR(check("tokens", model.tokens, 1));
  RETURN_IF_ERROR(check("text_tokens", model.text_tokens, 0));
  if (model.element_bytes != 2 && model.element_bytes != 4 &&
      model.element_bytes != 8) {
    return InvalidArgument(
        "model.element_bytes: found {}, expected 2, 4 or 8 (a job's precision "
        "BF16, FP16, FP32 or FP64)",
        model.element_bytes);
  }
  if (!model.pieces) {
    return InvalidArgument("model.pieces: found none, expected their source");
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

const PieceFigures& FiguresOf(const ModelPieces& pieces,
                              const ModelPiece& piece) {
  switch (piece.kind) {
    case ModelPiece::kEmbedding:
      return pieces.embedding;
    case ModelPiece::kHead:
      return pieces.head;
    default:
      return pieces.blocks[piece.block_kind];
  }
}

BlockSplit SplitOf(const Plan& plan) {
  return {.tp = plan.grid().tp(),
          .cp = plan.grid().cp(),
          .ulysses = plan.ulysses(),
          .ep = std::max<int64_t>(1, plan.grid().ep()),
          .moves_weights = plan.experts().move() == Plan::Experts::WEIGHTS,
          .row_chunks = std::max<int64_t>(1, plan.experts().chunks()),
          .shadowed = plan.experts().shadowed(),
          .node_ranks = std::max<int64_t>(1, plan.experts().node_ranks()),
          .deduplicates = plan.experts().deduplicate(),
          .row_copies = plan.experts().row_copies(),
          .max_load = plan.experts().max_load(),
          .sums_by_rank = plan.has_experts(),
          .sequence_parallel = plan.sequence_parallel(),
          .microbatch_size = plan.microbatch_size()};
}

ModelPieces PiecesOf(const ModelShape& model, const BlockSplit& split,
                     Plan::Recompute recompute, bool deferred) {
  CHECK(model.pieces) << "model.pieces: found none";
  return model.pieces(model, split, recompute, deferred);
}

double ModelTrainingFlops(const ModelShape& model, double blocks) {
  const auto flops_of = [](const PieceFigures& piece) {
    return ProductFlops(piece.kernels.forward) +
           ProductFlops(piece.kernels.backward_input) +
           ProductFlops(piece.kernels.backward_weight);
  };
  const ModelPieces pieces = PiecesOf(model, {}, Plan::NONE, false);
  double of_blocks = 0;
  for (const BlockRun& run : BlockRunsOf(model)) {
    of_blocks +=
        static_cast<double>(run.count) * flops_of(pieces.blocks[run.kind]);
  }
  return flops_of(pieces.embedding) + blocks * of_blocks +
         flops_of(pieces.head);
}

std::vector<BlockRun> BlockRunsOf(const ModelShape& model) {
  if (model.block_runs.empty()) return {{.kind = 0, .count = model.layers}};
  return model.block_runs;
}

int64_t FirstBlockOf(const ModelShape& model, int32_t kind) {
  int64_t first = -1, longest = 0, begin = 0;
  for (const BlockRun& run : BlockRunsOf(model)) {
    if (run.kind == kind && run.count > longest) {
      first = begin;
      longest = run.count;
    }
    begin += run.count;
  }
  CHECK_GE(first, 0) << "model.block_runs: no block of kind " << kind;
  return first;
}

std::vector<BlockRun> BlockRunsIn(const ModelShape& model, int64_t first,
                                  int64_t end) {
  std::vector<BlockRun> runs;
  int64_t begin = 0;
  for (const BlockRun& run : BlockRunsOf(model)) {
    const int64_t count =
        std::min(end, begin + run.count) - std::max(first, begin);
    if (count > 0) runs.push_back({.kind = run.kind, .count = count});
    begin += run.count;
  }
  return runs;
}

std::vector<ModelPiece> PiecesIn(const ModelShape& model) {
  std::vector<ModelPiece> pieces = {ModelPiece::kEmbedding, ModelPiece::kHead};
  for (int32_t kind = 0; kind < NumBlockKinds(model); ++kind) {
    pieces.emplace_back(ModelPiece::kBlock, kind);
  }
  return pieces;
}

int32_t NumBlockKinds(const ModelShape& model) {
  int32_t kinds = 1;
  for (const BlockRun& run : model.block_runs) {
    kinds = std::max(kinds, run.kind + 1);
  }
  return kinds;
}

}  // namespace trireme
