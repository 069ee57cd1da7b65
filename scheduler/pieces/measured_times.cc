#include "scheduler/pieces/measured_times.h"

#include <tuple>

namespace trireme {
namespace {

// Without the parameters, which are of one piece each.
auto SharedSizes(const Cluster::ModelTimes& times) {
  return std::tuple(times.hidden(), times.mlp_hidden(), times.heads(),
                    times.tokens(), times.text(), times.text_tokens(),
                    times.dtype());
}

uint64_t ParametersOf(const Cluster::ModelTimes& times,
                      Cluster::PieceTime::Piece piece) {
  switch (piece) {
    case Cluster::PieceTime::EMBEDDING:
      return times.embedding_parameters();
    case Cluster::PieceTime::HEAD:
      return times.head_parameters();
    default:
      return times.block_parameters();
  }
}

ModelPiece PieceOf(Cluster::PieceTime::Piece piece) {
  switch (piece) {
    case Cluster::PieceTime::EMBEDDING:
      return ModelPiece::kEmbedding;
    case Cluster::PieceTime::HEAD:
      return ModelPiece::kHead;
    default:
      return ModelPiece::kBlock;
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
  times.set_block_parameters(BlockParameters(model));
  times.set_embedding_parameters(model.embedding_parameters);
  times.set_head_parameters(model.head_parameters);
  return times;
}

int64_t UseMeasuredTimes(const ClusterModel& cluster, ModelShape& model) {
  model.measured.clear();
  if (model.dtype.empty()) return 0;
  const Cluster::ModelTimes wanted = SizesOf(model);
  for (const Cluster::ModelTimes& times : cluster.model_times) {
    if (SharedSizes(times) != SharedSizes(wanted)) continue;
    for (const Cluster::PieceTime& piece : times.pieces()) {
      if (ParametersOf(times, piece.piece()) !=
          ParametersOf(wanted, piece.piece())) {
        continue;
      }
      model.measured.push_back(
          {.piece = PieceOf(piece.piece()),
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
