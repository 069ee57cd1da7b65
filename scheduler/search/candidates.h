// The plans that the search considers: every combination of grid, schedule,
// sharding, microbatch and recomputation, each with one verdict.

#ifndef TRIREME_SCHEDULER_SEARCH_CANDIDATES_H_
#define TRIREME_SCHEDULER_SEARCH_CANDIDATES_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "scheduler/cluster/cluster.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.pb.h"
#include "scheduler/schedules/schedule.h"

namespace trireme {

enum class VerdictCode : uint8_t {
  // Not looked at yet; none is left when the search ends.
  kPending,
  // The plan.
  kChosen,
  // Slower than the chosen plan: simulated, or by a bound.
  kDominated,
  // Simulation was not worth its time: slower by the estimate that orders
  // candidates, but not proven so.
  kUnlikely,
  kOutOfMemory,
  // What offload keeps on a host is more than the host has.
  kHostOutOfMemory,
  // Something does not divide evenly.
  kIndivisible,
  // Tensor-parallel ranks would not share a node.
  kTpCrossesNode,
  // Fewer samples than replicas.
  kBatchTooSmall,
  // Fewer blocks than stages.
  kTooFewBlocks,
  // ResolvePlan refuses it.
  kUnsupported,
};

std::string_view VerdictCodeName(VerdictCode code);

struct Candidate {
  int32_t tp = 1;
  int32_t cp = 1;
  int32_t ulysses = 1;
  int32_t dp = 1;
  int32_t pp = 1;
  int32_t ep = 1;
  int32_t chunks = 1;
  int32_t microbatch_size = 1;
  Plan::Schedule schedule = Plan::ONE_F_ONE_B;
  Plan::Sharding sharding = Plan::REPLICATED;
  Plan::Recompute recompute = Plan::NONE;
  bool sequence_parallel = false;
  // 0: the plan's default. Not enumerated, but tried on the best plans.
  int32_t shard_group = 0;
  int32_t microbatch_group = 0;
  int32_t recompute_blocks = 0;  // of each stage; with FULL
  int32_t expert_move = 0;       // Plan::Experts::Move
  int32_t row_chunks = 0;        // Plan::Experts::chunks
  int32_t row_copies = 0;        // Plan::Experts::row_copies
  int32_t node_ranks = 0;        // and deduplicate, of Plan::Experts
  bool offload = false;
  // With offload; 0: by ChooseResidentUnits, once the candidate is costed.
  int32_t resident_units = 0;
  // With offload, of each stage; chosen once the plan fits with none.
  int32_t device_blocks = 0;
  // With offload and FULL: blocks' inputs on the host. Not enumerated, but
  // tried where the devices' memory is too small.
  bool activations = false;
  // With offload: optimizer states on the nodes' drives. Not enumerated, but
  // tried where the hosts' memory is too small.
  bool drive = false;
  // Then: all weights but those of so many blocks, too; 0: none. Tried where
  // that is still too little.
  int32_t host_units = 0;

  VerdictCode verdict = VerdictCode::kPending;
  std::string_view indivisible;  // kIndivisible: what does not divide
  int32_t pp_rank = -1;          // kOutOfMemory
  int64_t over_bytes = 0;        // kOutOfMemory, kHostOutOfMemory
  bool simulated = false;
  // Simulated, else a lower bound; 0 where neither is known.
  double step_s = 0;

  friend bool operator==(const Candidate&, const Candidate&) = default;
};

// Whether blocks' inputs could leave, too.
inline bool MayMoveInputs(const Candidate& candidate) {
  return candidate.offload && candidate.recompute == Plan::FULL &&
         !candidate.activations;
}

// Whether plans with offload are considered. Where a plan fits without, none
// with it is faster: it computes the same and waits for copies and the host's
// optimizer besides.
enum class OffloadSearch : uint8_t {
  kWhereNothingFits,
  kNever,
  kToo,
  kOnly,
};

struct CandidateSpace {
  std::vector<Plan::Schedule> schedules = AllScheduleIds();
  std::vector<Plan::Sharding> shardings = {Plan::REPLICATED, Plan::OPTIMIZER,
                                           Plan::GRADIENTS, Plan::PARAMETERS};
  std::vector<Plan::Recompute> recomputes = {Plan::NONE, Plan::SELECTIVE,
                                             Plan::FULL};
  int32_t max_tp = 16;
  int32_t max_cp = 8;
  int32_t max_pp = 128;
  int32_t max_chunks = 4;
  // Sizes are the divisors of a replica's batch. Only stages gain from many
  // small microbatches.
  int32_t max_microbatch_size = 16;
  int32_t max_microbatch_size_without_stages = 64;
  // kWhereNothingFits is the search's to carry out: enumerated as kNever.
  OffloadSearch offload = OffloadSearch::kWhereNothingFits;
};

// In a fixed order. Those that cannot be have their verdict; where a grid
// cannot be, one candidate stands for all that share it.
std::vector<Candidate> EnumerateCandidates(const ModelShape& model,
                                           const ClusterModel& cluster,
                                           int64_t global_batch,
                                           const CandidateSpace& space);

// "tp 2 x cp 1 x pp 4 x dp 8, ONE_F_ONE_B, OPTIMIZER, 2 samples per microbatch,
// recompute NONE".
std::string ToText(const Candidate& candidate);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SEARCH_CANDIDATES_H_
