#include "scheduler/pieces/measured_times.h"

#include <cstdint>
#include <tuple>

#include "scheduler/pieces/model_shape.h"

namespace trireme {
namespace {

// Without the parameters, which are of one piece each.
auto SharedSizes(const Cluster::ModelTimes& times) {
  return std::tuple(times.hidden(), times.mlp_hidden(), times.heads(),
                    times.tokens(), times.text(), times.text_tokens(),
                    times.dtype());
}

// 0: no such piece.
uint64_t ParametersOf(const Cluster::ModelTimes& times,
                      Cluster::PieceTime::Piece piece, uint32_t kind) {
  switch (piece) {
    case Cluster::PieceTime::EMBEDDING:
      return times.embedding_parameters();
    case Cluster::PieceTime::HEAD:
      return times.head_parameters();
    default:
      return kind < static_cast<uint32_t>(times.block_parameters_size())
                 ? times.block_parameters(static_cast<int>(kind))
                 : 0;
  }
}

// Files may have been edited.
bool MayBeSplitBy(const ModelShape& model, int64_t tp) {
  return model.heads % tp == 0 && model.mlp_hidden % tp == 0 &&
         model.shared_hidden % tp == 0;
}

ModelPiece PieceOf(const Cluster::PieceTime& time) {
  switch (time.piece()) {
    case Cluster::PieceTime::EMBEDDING:
      return ModelPiece::kEmbedding;
    case Cluster::PieceTime::HEAD:
      return ModelPiece::kHead;
    default:
      return {ModelPiece::kBlock, static_cast<int32_t>(time.block_kind())};
  }
}

}  // namespace

Cluster::ModelTimes SizesOf(const ModelShape& model) {
  Cluster::ModelTimes times;
  times.set_hidden(model.hidden);
  times.set_mlp_hidden(model.mlp_hidden);
  times.set_heads(model.heads);
  times.set_tokens(model.tokens);
  times.set_text(
      model.text == ModelShape::Text::kCross   ? Cluster::ModelTimes::CROSS
      : model.text == ModelShape::Text::kJoint ? Cluster::ModelTimes::JOINT
                                               : Cluster::ModelTimes::NONE);
  times.set_text_tokens(model.text_tokens);
  times.set_dtype(model.dtype);
  const ModelPieces pieces = PiecesOf(model, {}, Plan::NONE, false);
  for (const PieceFigures& block : pieces.blocks) {
    times.add_block_parameters(block.parameters);
  }
  times.set_embedding_parameters(pieces.embedding.parameters);
  times.set_head_parameters(pieces.head.parameters);
  return times;
}

int64_t UseMeasuredTimes(const ClusterModel& cluster, ModelShape& model) {
  model.measured.clear();
  if (model.dtype.empty()) return 0;
  const Cluster::ModelTimes wanted = SizesOf(model);
  for (const Cluster::ModelTimes& times : cluster.model_times) {
    if (SharedSizes(times) != SharedSizes(wanted)) continue;
    for (const Cluster::PieceTime& piece : times.pieces()) {
      if (ParametersOf(times, piece.piece(), piece.block_kind()) !=
              ParametersOf(wanted, piece.piece(), piece.block_kind()) ||
          !MayBeSplitBy(model, piece.tp())) {
        continue;
      }
      model.measured.push_back(
          {.piece = PieceOf(piece),
           .device = piece.device(),
           .tp = piece.tp(),
           .cp = piece.cp(),
           .sequence_parallel = piece.sequence_parallel(),
           .microbatch_size = piece.microbatch_size(),
           .forward_s = piece.forward_s(),
           .backward_s = piece.backward_s(),
           .backward_weight_s = piece.backward_weight_s()});
    }
  }
  return static_cast<int64_t>(model.measured.size());
}

}  // namespace trireme
