// What every instruction of a plan costs in time and memory on a cluster: the
// bridge from (Plan, ModelShape, ClusterModel) to the simulator's CostModel and
// MemoryModel.
//
// Collectives of tp and cp, and those of sharded gradients and parameters for
// each microbatch, happen inside a chunk's forward and backward; their exposed
// seconds are part of the chunk's and are also reported by cause.

#ifndef TRIREME_SCHEDULER_COSTS_PLAN_COSTS_H_
#define TRIREME_SCHEDULER_COSTS_PLAN_COSTS_H_

#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "scheduler/cluster/cluster.h"
#include "scheduler/cluster/collectives.h"
#include "scheduler/pieces/model_pieces.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.pb.h"
#include "scheduler/plan/stage_partition.h"
#include "scheduler/program/memory.h"
#include "scheduler/simulator/cost_model.h"

namespace trireme {

// In which order the plan's groups add up what they send each other.
inline SumOrder SumOrderOf(const Plan& plan) {
  return plan.reduce_order() == Plan::FAST ? SumOrder::kOfCluster
                                           : SumOrder::kRanks;
}

// Seconds of one microbatch on a chunk, forward and backward, by cause; what is
// left of the chunk's time is arithmetic that had to be done.
struct ChunkParts {
  double tp_s = 0;
  // What of tp_s would be left of messages without bytes, at most.
  double tp_latency_s = 0;
  double cp_s = 0;
  double ep_s = 0;
  double dp_s = 0;  // GRADIENTS and PARAMETERS sharding
  double recompute_s = 0;
};

// Of one data-parallel replica.
struct PlanCosts {
  CostModel cost;
  MemoryModel memory;
  // parts[pipeline rank][chunk].
  std::vector<std::vector<ChunkParts>> parts;
  // Of each stage.
  std::vector<int32_t> buckets;
  // Of each pipeline rank when the last backward is over: what reductions of
  // all its buckets need.
  std::vector<int64_t> reduction_bytes;
  // Of each pipeline rank's processes: what offload keeps on their host. Empty
  // without it.
  std::vector<int64_t> host_bytes;
  // Likewise on their drive.
  std::vector<int64_t> drive_bytes;
};

// All groups of one kind that a pipeline rank's ranks form.
struct StageGroups {
  RingCost slowest;
  // What one byte of a reduce-scatter, and of an all-gather, over all of them
  // occupies of shared cards and links; the byte is of one group's tensor.
  std::vector<Channel> reduce_channels;
  std::vector<Channel> gather_channels;

  friend bool operator==(const StageGroups&, const StageGroups&) = default;
};

struct StageRings {
  // Data parallelism's (of dp·cp ranks), those that share shards, and of ranks
  // that hold the same experts (tp·cp·dp/ep).
  StageGroups reduction;
  StageGroups shards;
  StageGroups experts;
  // Memory of the smallest device.
  int64_t limit_bytes = 0;

  friend bool operator==(const StageRings&, const StageRings&) = default;
};

// What depends on the grid, its placement, the shard group and the order of
// sums alone, of each pipeline rank: plans that share them can share it.
using PlanRings = std::vector<StageRings>;

// The slowest group of each kind that the ranks of one stage of one replica
// form; one member where there is none.
class BlockRings {
 public:
  using Group = PieceCollective::Group;

  RingCost& Of(Group group) { return rings_[static_cast<size_t>(group)]; }
  const RingCost& Of(Group group) const {
    return rings_[static_cast<size_t>(group)];
  }

 private:
  std::array<RingCost, PieceCollective::kNumGroups> rings_;
};

// Seconds of one microbatch on one device, without communication.
struct ArithmeticSeconds {
  double forward_s = 0;
  // Without what is computed again.
  double backward_s = 0;
  // Of the backward, what can be put off.
  double backward_weight_s = 0;
  // What the plan's recomputation adds to the backward of a piece that does it.
  double again_s = 0;
};

struct DeviceArithmetic {
  // By ModelPiece::index; without recomputation that runs a whole block again.
  std::vector<ArithmeticSeconds> pieces;
  // Of the optimizer, for one parameter.
  double update_s = 0;

  const ArithmeticSeconds& Of(const ModelPiece& piece) const {
    return pieces[piece.index()];
  }
};

// Communicators of at least two members that each rank has in a plan, at most
// (parallel/grid/communicators.h).
int64_t CommunicatorsOf(const Plan& plan);

// Buckets of so many bytes of gradients, as plans reduce them.
int32_t BucketsOfGradients(const Plan& plan, int64_t gradient_bytes);

Plan::MemoryBytes ToProto(const MemoryBytes& bytes);

// What is left of the memory of one of the node's devices beside them.
int64_t MemoryLimitOn(const ClusterModel& cluster, const Plan& plan,
                      int32_t node);

class PlanCoster {
 public:
  // `plan`: resolved, and with as many ranks as the cluster. All must outlive
  // the coster; the plan's stages may change their blocks meanwhile. `rings`:
  // of a like plan, or null.
  PlanCoster(const ModelShape& model, const ClusterModel& cluster,
             const Plan& plan,
             std::shared_ptr<const PlanRings> rings = nullptr);

  const std::shared_ptr<const PlanRings>& rings() const { return rings_; }

  // Of the largest message between stages, without skips that stay on their
  // rank.
  int64_t message_bytes() const;

  // Of data-parallel replica `replica`. Its parts that depend only on the
  // stage (memory, gradient reduction) are the worst of all replicas'.
  PlanCosts CostsOf(int32_t replica) const;

  // On one of the node's devices.
  DeviceArithmetic ArithmeticOn(int32_t node) const;

  // Forward and backward of one microbatch through all blocks, embedding and
  // head of a pipeline rank, on one of the node's devices, without
  // communication.
  double StageArithmetic(int32_t node, int32_t pp) const;

  // Time of each block, embedding and head on the fastest pipeline rank as the
  // plan is placed, and how much slower the others are, for cutting stages. A
  // pipeline rank is as slow as the slowest of its devices over all replicas.
  PartitionCosts PartsToCut() const;

 private:
  struct BlockTime {
    double forward_s = 0;
    double backward_s = 0;
    double backward_weight_s = 0;
    ChunkParts parts;
  };
  // By kind: blocks that run again in backward, and others.
  struct BlockTimes {
    std::vector<BlockTime> again, kept;
  };
  // And both ends of the model where the stage has them.
  struct StageTimes {
    const BlockTimes* blocks = nullptr;
    BlockTime embedding, head;
  };
  // Consecutive blocks of a stage: the first of them run again in backward.
  struct StageBlocks {
    int32_t kind = 0;
    int64_t again = 0;
    int64_t kept = 0;
    int64_t count() const { return again + kept; }
  };

  PlanRings MakeRings() const;
  StageRings RingsOfStage(int32_t pp) const;
  LinkCost HopOf(int32_t replica, int32_t from_pp, int32_t to_pp) const;
  // Of rank `i` of the stage.
  int32_t NodeOf(int32_t i, int32_t pp) const;
  int32_t Physical(int64_t tp, int64_t cp, int64_t dp, int64_t pp) const;
  BlockRings RingsOf(int32_t replica, int32_t pp) const;
  // Compute and communication of one block on the ranks of (replica, pp).
  BlockTime TimeOfBlock(int32_t replica, int32_t pp, int32_t kind,
                        bool recomputed, const BlockRings& rings) const;
  // The node of (replica, pp) whose devices take longest.
  int32_t SlowestNode(int32_t replica, int32_t pp) const;
  // A stage's blocks in order.
  std::vector<StageBlocks> BlocksOf(int32_t stage) const;
  // The same for those that keep less than everything for backward.
  std::vector<StageBlocks> DroppingBlocksOf(int32_t stage) const;
  std::vector<StageBlocks> Divide(int32_t stage, int64_t first) const;
  // Of the first block of a stage.
  const PieceFigures& FirstBlockOf(int32_t stage) const;
  // What a stage receives from the one before, without skips that stay on
  // their rank.
  int64_t ReceivedBytes(int32_t stage) const;
  // Of skips that wait on the rank of this stage, which makes them: from its
  // forward to their reader's, and as much of gradients from the reader's
  // backward to its own.
  int64_t StayingBytes(int32_t stage) const;
  // Of the blocks of a stage.
  std::pair<int64_t, int64_t> BlockRangeOf(int32_t stage) const;
  // Arithmetic of one block on one node's devices, and of all of the model's.
  BlockTime ArithmeticOfBlock(int32_t node, int32_t kind,
                              bool recomputed) const;
  double ArithmeticOfModel(int32_t node, bool recomputed) const;
  ArithmeticSeconds ByKernels(const PieceKernels& kernels,
                              const ClusterDevice& device) const;
  const MeasuredPiece* NearestMeasured(const ModelPiece& piece,
                                       const ClusterDevice& device) const;
  // By device and ModelPiece::index.
  std::vector<std::vector<ArithmeticSeconds>> TimePieces() const;
  // On one of the node's devices, by what was measured where it was.
  ArithmeticSeconds SecondsOf(const ModelPiece& piece, int32_t node) const;
  double ElementwiseSeconds(double bytes, int32_t node) const;
  // That an update of one parameter reads and writes: its gradient, its states
  // and, written alone where the states have the master, its weight.
  double UpdatedBytes() const;
  double UpdateSeconds(double parameters, int32_t node) const;
  // In one kernel.
  double BucketUpdateSeconds(double parameters, int32_t node) const;
  bool ShardsParameters() const { return plan_.sharding() == Plan::PARAMETERS; }
  // Makes room in `time`, which is arithmetic alone, for the collectives.
  void AddCollectives(const PieceFigures& piece, const BlockRings& rings,
                      bool recomputed, BlockTime& time) const;
  // And for those of sharded parameters, whose gradients go with them.
  void AddSharding(const PieceFigures& piece, const RingCost& ring,
                   BlockTime& time) const;
  int32_t BucketsOf(int32_t stage) const;
  // That each rank of the stage updates.
  double OwnParameters(int32_t stage) const;
  // Of one bucket.
  struct BucketBytes {
    double gradients = 0;
    double weights = 0;
  };
  struct BucketSeconds {
    double reduce_s = 0;
    double gather_s = 0;
  };
  BucketBytes BucketBytesOf(int64_t parameters, int32_t buckets) const;
  BucketSeconds ReductionOf(const BucketBytes& bytes, const RingCost& reduction,
                            const RingCost& shards) const;
  // Of sharded states, of which several ranks hold each part.
  bool SumsShardCopies() const;
  int64_t StageParameters(int32_t stage) const;
  // Among them those that are reduced as experts are, and with ep > 1 held
  // whole.
  int64_t StageExpertParameters(int32_t stage) const;
  // Of `parameters`, which include experts', those that sharding divides.
  int64_t Shardable(int64_t parameters, int64_t experts) const {
    return ep_ > 1 ? parameters - experts : parameters;
  }
  int64_t ChunkActivationBytes(int32_t stage) const;
  // The most that a block of the stage holds above ChunkActivationBytes while
  // it runs: blocks behind it hold nothing yet, or only what is put off.
  int64_t TransientBytes(int32_t stage) const;
  // What the reductions and gathers of a stage's buckets take and occupy.
  void ChargeReductions(int32_t stage, PlanCosts& costs) const;
  // GRADIENTS scatter each microbatch's buckets, which take `travel_s`
  // together, as its backward fills them, behind what the rank computes until
  // the next microbatch's are full (parallel/sharding/gradient_reducer.h). Each
  // backward waits for what takes longer than that; the last microbatch's are
  // the step's reductions.
  void ChargeTravels(double travel_s, int32_t buckets, ChunkCost& chunk,
                     ChunkParts& parts) const;
  // The links between neighbouring pipeline ranks of one replica.
  void ChargeMessages(int32_t replica, PlanCosts& costs) const;
  // Of a block, where it is offloaded: parameters that train, and bytes of all.
  int64_t LeavingParameters(int32_t kind) const;
  int64_t LeavingBytes(int32_t kind) const;
  // Of the former, what sharding divides, and what a rank then has of them
  // where the plan shards `from` or less.
  int64_t SharedParameters(int32_t kind) const;
  int64_t OwnLeavingParameters(int32_t kind, Plan::Sharding from) const;
  // Of a run of so many blocks, which come after `before` others of their
  // stage: how many stay on the device.
  int64_t StayingBlocks(int64_t before, int64_t count) const;
  // Of a stage, without blocks that leave.
  int64_t StayingParameters(int32_t stage) const;
  // What a unit's gather on the device adds to its copy there, and a
  // microbatch's sums over ranks to that of its gradients.
  double GatherSeconds(int32_t kind, const StageRings& rings) const;
  double SumSeconds(int32_t kind, const StageRings& rings) const;
  // Of what it keeps of a microbatch, where that leaves.
  int64_t LeavingInputBytes(int32_t kind) const;
  // Of a copy of a unit to the device, how often it is read from the drive
  // before: on average, where a rank has so many units.
  double ReadsOfACopy(int64_t units) const;
  // The costs of a stage's units, whose sums are the chunk's.
  void DivideIntoUnits(int32_t replica, int32_t stage, const StageTimes& times,
                       PlanCosts& costs) const;
  int64_t BlockActivationBytes(int32_t kind, bool dropped) const;
  // From a rank whose blocks are all on the device to one that offloads them.
  void OffloadMemory(int32_t pp, RankMemory& memory) const;
  int64_t ReductionBytes(int32_t pp) const;
  RankMemory MemoryOf(int32_t pp, const std::vector<int32_t>& buckets) const;

  const ModelShape& model_;
  const ClusterModel& cluster_;
  const Plan& plan_;
  const BlockSplit split_;
  const int32_t tp_, cp_, dp_, pp_, ep_;
  const std::vector<StageLocation> stages_;
  // Under the plan's recomputation, and without any.
  const ModelPieces pieces_, pieces_kept_;
  const std::vector<std::vector<ArithmeticSeconds>> seconds_;
  const double beside_communication_;
  std::shared_ptr<const PlanRings> rings_;
};

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_COSTS_PLAN_COSTS_H_
