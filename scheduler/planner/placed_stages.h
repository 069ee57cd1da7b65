// What the stages of one pipeline rank take on the nodes where a placement has
// them, at least, by how many blocks the rank has: before the others are
// placed, and before the plan's blocks are cut.

#ifndef TRIREME_SCHEDULER_PLANNER_PLACED_STAGES_H_
#define TRIREME_SCHEDULER_PLANNER_PLACED_STAGES_H_

#include <array>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "scheduler/plan.pb.h"
#include "scheduler/planner/cluster.h"
#include "scheduler/planner/model_shape.h"
#include "scheduler/planner/plan_costs.h"

namespace trireme {

// By the nodes of a stage's units, one byte each: for plans with the same grid
// and shard group.
using RingsByNodes = std::unordered_map<std::string, StageRings>;

// Seconds of one microbatch.
struct PassSeconds {
  double forward_s = 0;
  // Of the backward, what the stage below waits for.
  double input_s = 0;
  // Forward and backward.
  double work_s = 0;
  // What is last of a backward.
  double last_s = 0;
};

// The stages of one pipeline rank in one replica.
struct PlacedReplica {
  PassSeconds block;
  // On top, where the rank has them.
  PassSeconds embedding;
  PassSeconds head;
  int32_t slowest_node = 0;
  // Of a block without sharding.
  ArithmeticSeconds whole;
};

// The stages of one pipeline rank in all replicas.
struct PlacedStage {
  // Seconds of a rank with so many blocks or more.
  struct Seconds {
    // All work, reductions behind the last backward, update.
    double busy_s = 0;
    // Weight gradients and reductions after what the stage below waits for.
    double end_s = 0;
    double update_s = 0;
  };

  const Seconds& Of(size_t replica, int64_t blocks) const {
    return seconds[static_cast<size_t>(blocks - least_blocks) *
                       replicas.size() +
                   replica];
  }

  // With what sharded gradients and parameters add.
  std::vector<PlacedReplica> replicas;
  // Of a step of the slowest ring.
  double latency_s = 0;
  // Memory of the smallest device.
  int64_t limit_bytes = 0;
  int64_t least_blocks = 0;
  // [blocks beyond the least][replica].
  std::vector<Seconds> seconds;
};

class PlacedStages {
 public:
  // `plan`: resolved. `rings`: of like plans, or empty. All but the plan must
  // outlive the object.
  PlacedStages(const ModelShape& model, const ClusterModel& cluster,
               const Plan& plan, const RuntimeTraits& traits,
               RingsByNodes& rings);
  PlacedStages(const PlacedStages&) = delete;
  PlacedStages& operator=(const PlacedStages&) = delete;

  // Moves a unit of tp ranks.
  void Place(int32_t unit, int32_t node);

  // Where their units are now. References are valid until the next call about
  // the same rank.
  const PlacedReplica& ReplicaAt(int32_t pp, int32_t replica);
  const PlacedStage& StageAt(int32_t pp);
  LinkCost HopAt(int32_t replica, int32_t from_pp, int32_t to_pp) const {
    return coster_.HopOf(replica, from_pp, to_pp);
  }

  // Of one block on one of the node's devices, without communication.
  const PassSeconds& BlockOn(int32_t node) const { return blocks_[node]; }
  // Any rank has at least and at most so many blocks; and those of a rank of
  // which no more fit into so many bytes.
  int64_t least_blocks() const { return least_blocks_; }
  int64_t most_blocks() const { return most_blocks_; }
  int64_t MostBlocksIn(int32_t pp, int64_t limit_bytes) const;

 private:
  // What follows the last backwards on a rank, at least.
  struct RankEnd {
    int32_t buckets = 1;  // of one stage
    double bucket_reduce_s = 0;
    // All of them.
    double reduce_s = 0;
    double gather_s = 0;
    double parameters = 0;  // updated
  };

  PassSeconds PassOf(const ArithmeticSeconds& seconds) const;
  PlacedStage MakeStage(int32_t pp);
  StageEnd EndOfStage(int32_t stage, int64_t blocks, const StageRings& rings);
  RankEnd EndOfRank(const std::vector<int32_t>& stages, int64_t blocks,
                    const StageRings& rings);
  void AddEnds(int32_t pp, const StageRings& rings, PlacedStage& stage);
  void FindPeaks();

  const ClusterModel& cluster_;
  Plan plan_;
  const PlanCoster coster_;
  const bool halves_;  // backwards in two halves
  const int32_t units_per_replica_, units_per_stage_, pp_;
  const int64_t least_blocks_, most_blocks_;
  const std::vector<StageLocation> stages_;
  // [node]
  std::vector<PassSeconds> blocks_;
  std::vector<double> update_s_;  // of one parameter
  std::vector<int64_t> node_limits_;
  // [pipeline rank][blocks beyond the least].
  std::vector<std::vector<int64_t>> peak_bytes_;
  std::string nodes_;  // of each unit
  RingsByNodes& rings_;
  std::unordered_map<std::string, PlacedReplica> replicas_;
  // By what the rank has beside blocks: the first, the last, others.
  std::array<std::unordered_map<std::string, PlacedStage>, 3> placed_;
  PlacedStage only_;  // without pipeline, where no two placements share it
};

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PLANNER_PLACED_STAGES_H_
