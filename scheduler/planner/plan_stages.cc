// What single stages of a plan take where its placement has them now.

#include "scheduler/planner/plan_costs.h"

namespace trireme {

StageRings PlanCoster::RingsOfStage(int32_t pp) const {
  return MakeStageRings(pp, nullptr, nullptr);
}

ReplicaSeconds PlanCoster::SecondsOfReplica(int32_t replica, int32_t pp) const {
  const BlockRings rings = RingsOf(replica, pp);
  ReplicaSeconds seconds;
  seconds.slowest_node = SlowestNode(replica, pp);
  const auto with_collectives =
      [&](BlockTime time, const std::vector<BlockCollective>& collectives,
          bool recomputed) -> ArithmeticSeconds {
    AddCollectives(collectives, rings, recomputed, time);
    return {time.forward_s, time.backward_s, time.backward_weight_s};
  };
  const auto piece = [&](ModelPiece piece) -> BlockTime {
    const ArithmeticSeconds time = SecondsOf(piece, seconds.slowest_node);
    return {.forward_s = time.forward_s,
            .backward_s = time.backward_s,
            .backward_weight_s = time.backward_weight_s};
  };
  const bool recomputed =
      plan_.recompute() == Plan::FULL && !plan_.has_recompute_blocks();
  seconds.block =
      with_collectives(ArithmeticOfBlock(seconds.slowest_node, recomputed),
                       block_collectives_, recomputed);
  seconds.embedding = with_collectives(piece(ModelPiece::kEmbedding),
                                       EmbeddingCollectives(model_, split_),
                                       /*recomputed=*/false);
  seconds.head =
      with_collectives(piece(ModelPiece::kHead),
                       HeadCollectives(model_, split_), /*recomputed=*/false);
  return seconds;
}

ArithmeticSeconds PlanCoster::WithSharding(const ArithmeticSeconds& block,
                                           const RingCost& shards) const {
  BlockTime time = {.forward_s = block.forward_s,
                    .backward_s = block.backward_s,
                    .backward_weight_s = block.backward_weight_s};
  AddSharding(shards, time);
  return {time.forward_s, time.backward_s, time.backward_weight_s};
}

StageEnd PlanCoster::EndOfStage(int32_t stage, const StageRings& rings) const {
  const int32_t buckets = BucketsOf(stage);
  const BucketSeconds seconds =
      ReductionOf(BucketBytesOf(stage, buckets), rings.reduction, rings.shards);
  const BucketSeconds latency =
      ReductionOf(BucketBytes(), rings.reduction, rings.shards);
  return {.buckets = buckets,
          .reduce_s = seconds.reduce_s,
          .gather_s = seconds.gather_s,
          .reduce_latency_s = latency.reduce_s,
          .gather_latency_s = latency.gather_s,
          .parameters = OwnParameters(stage)};
}

}  // namespace trireme
