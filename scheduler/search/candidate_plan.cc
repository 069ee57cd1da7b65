#include "scheduler/search/candidate_plan.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "runtime/core/status.h"
#include "scheduler/costs/host_memory.h"
#include "scheduler/plan/stage_partition.h"
#include "scheduler/schedules/schedule.h"

namespace trireme {
namespace {

// Blocks cost 1 each.
double LargestRank(const PartitionCosts& costs,
                   const std::vector<StageLocation>& stages,
                   const std::vector<int64_t>& cut) {
  std::vector<double> ranks(stages.size(), 0.0);
  for (size_t i = 0; i < stages.size(); ++i) {
    ranks[stages[i].rank] += static_cast<double>(cut[i]);
  }
  ranks[stages.front().rank] += costs.embedding;
  ranks[stages.back().rank] += costs.head;
  for (size_t i = 0; i < costs.slowness.size(); ++i) {
    ranks[i] *= costs.slowness[i];
  }
  return *std::max_element(ranks.begin(), ranks.end());
}

}  // namespace

absl::Status StageCutter::Cut(const PlanCoster& coster, Plan& plan) {
  PartitionCosts costs = coster.PartsToCut();
  const double block = costs.blocks.front();
  // To a hundredth of a block, so that like candidates share the cut.
  const int64_t embedding = std::llround(100 * costs.embedding / block);
  const int64_t head = std::llround(100 * costs.head / block);
  std::vector<int64_t> slowness;
  for (double& relative : costs.slowness) {
    slowness.push_back(std::llround(100 * relative));
    relative = static_cast<double>(slowness.back()) / 100;
  }
  const auto key =
      std::tuple(plan.stages_size(), plan.grid().pp(), ScheduleOf(plan).layout,
                 embedding, head, slowness);
  auto found = cuts_.find(key);
  if (found == cuts_.end()) {
    costs.blocks.assign(costs.blocks.size(), 1.0);
    costs.embedding = static_cast<double>(embedding) / 100;
    costs.head = static_cast<double>(head) / 100;
    const std::vector<StageLocation> stages = StagesOf(plan);
    ASSIGN_OR_RETURN(std::vector<int64_t> cut, PartitionStages(costs, stages));
    // Exact for one stage per rank; with several an even cut may be better.
    std::vector<int64_t> even =
        EvenStages(static_cast<int64_t>(costs.blocks.size()),
                   static_cast<int64_t>(stages.size()));
    if (LargestRank(costs, stages, even) < LargestRank(costs, stages, cut)) {
      cut = std::move(even);
    }
    found = cuts_.emplace(key, std::move(cut)).first;
  }
  plan.clear_stages();
  for (const int64_t blocks : found->second) {
    plan.add_stages()->set_blocks(static_cast<uint32_t>(blocks));
  }
  return absl::OkStatus();
}

Candidate CandidateOf(const Plan& plan) {
  const auto number = [](uint32_t value) {
    return static_cast<int32_t>(value);
  };
  Candidate candidate;
  candidate.tp = number(plan.grid().tp());
  candidate.cp = number(plan.grid().cp());
  candidate.ulysses = number(plan.ulysses());
  candidate.dp = number(plan.grid().dp());
  candidate.pp = number(plan.grid().pp());
  candidate.ep = number(plan.grid().ep());
  candidate.chunks = number(plan.chunks_per_rank());
  candidate.microbatch_size = number(plan.microbatch_size());
  candidate.schedule = plan.schedule();
  candidate.sharding = plan.sharding();
  candidate.recompute = plan.recompute();
  candidate.sequence_parallel = plan.sequence_parallel();
  if (plan.shard_group() < plan.grid().dp()) {
    candidate.shard_group = number(plan.shard_group());
  }
  if (plan.microbatch_group() > plan.grid().pp()) {
    candidate.microbatch_group = number(plan.microbatch_group());
  }
  candidate.recompute_blocks = number(plan.recompute_blocks());
  if (plan.has_experts()) {
    candidate.expert_move = plan.experts().move();
    candidate.row_chunks = number(plan.experts().chunks());
    if (plan.experts().deduplicate()) {
      candidate.node_ranks = number(plan.experts().node_ranks());
    }
    candidate.row_copies = number(plan.experts().row_copies());
  }
  candidate.offload = plan.has_offload();
  candidate.resident_units = number(plan.offload().resident_units());
  candidate.device_blocks = number(plan.offload().device_blocks());
  candidate.activations = plan.offload().activations();
  candidate.drive = plan.offload().has_nvme();
  candidate.host_units = number(plan.offload().nvme().host_units());
  return candidate;
}

void SetRefinements(const Candidate& candidate, Plan& plan) {
  if (candidate.shard_group > 0) plan.set_shard_group(candidate.shard_group);
  if (candidate.microbatch_group > 0) {
    plan.set_microbatch_group(candidate.microbatch_group);
  }
  if (candidate.recompute_blocks > 0) {
    plan.set_recompute_blocks(candidate.recompute_blocks);
  }
  if (candidate.resident_units > 0) {
    plan.mutable_offload()->set_resident_units(candidate.resident_units);
  }
  if (candidate.device_blocks > 0) {
    plan.mutable_offload()->set_device_blocks(candidate.device_blocks);
  }
  if (candidate.expert_move == 0 && candidate.row_chunks == 0 &&
      candidate.row_copies == 0 && candidate.node_ranks == 0) {
    return;
  }
  Plan::Experts& experts = *plan.mutable_experts();
  experts.set_move(candidate.expert_move > 0
                       ? static_cast<Plan::Experts::Move>(candidate.expert_move)
                       : Plan::Experts::ROWS);
  experts.set_node_ranks(std::max(1, candidate.node_ranks));
  experts.set_max_load(0);
  experts.set_chunks(std::max(1, candidate.row_chunks));
  experts.set_shadowed(0);
  experts.set_row_copies(candidate.row_copies);
  experts.set_deduplicate(candidate.node_ranks > 0);
}

PlanContext ContextOf(const ModelShape& model, const ClusterModel& cluster,
                      int64_t global_batch) {
  return {.world_size = cluster.num_ranks(),
          .global_batch = global_batch,
          .mlp_hidden = model.mlp_hidden,
          .num_blocks = model.layers,
          .heads = model.heads,
          .experts = model.experts,
          .expert_hidden = model.expert_hidden,
          .shared_hidden = model.shared_hidden,
          .context_parallel = model.context_parallel,
          .sequence_parallel = model.sequence_parallel};
}

absl::StatusOr<Plan> UncutPlan(const ModelShape& model,
                               const ClusterModel& cluster,
                               int64_t global_batch,
                               const Candidate& candidate) {
  Plan plan;
  Plan::Grid& grid = *plan.mutable_grid();
  grid.set_tp(candidate.tp);
  grid.set_cp(candidate.cp);
  grid.set_dp(candidate.dp);
  grid.set_pp(candidate.pp);
  grid.set_ep(candidate.ep);
  plan.set_schedule(candidate.schedule);
  plan.set_chunks_per_rank(candidate.chunks);
  plan.set_microbatch_size(candidate.microbatch_size);
  plan.set_ulysses(candidate.ulysses);
  plan.set_sequence_parallel(candidate.sequence_parallel);
  plan.set_sharding(candidate.sharding);
  plan.set_recompute(candidate.recompute);
  SetRefinements(candidate, plan);
  if (candidate.offload) {
    RETURN_IF_ERROR(CheckHostLinks(cluster));
    Plan::Offload& offload = *plan.mutable_offload();
    offload.set_activations(candidate.activations);
    if (candidate.drive) {
      offload.mutable_nvme()->set_folder(DriveFolderOf(cluster));
      offload.mutable_nvme()->set_host_units(
          static_cast<uint32_t>(candidate.host_units));
    }
  }
  return ResolvePlan(plan, ContextOf(model, cluster, global_batch));
}

void PlaceAt(const std::vector<int32_t>& physical, Plan& plan) {
  plan.mutable_placement()->Assign(physical.begin(), physical.end());
}

absl::StatusOr<Plan> PlanOfCandidate(const ModelShape& model,
                                     const ClusterModel& cluster,
                                     int64_t global_batch,
                                     const Candidate& candidate,
                                     const std::vector<int32_t>& physical) {
  ASSIGN_OR_RETURN(Plan plan,
                   UncutPlan(model, cluster, global_batch, candidate));
  if (!physical.empty()) PlaceAt(physical, plan);
  const PlanCoster coster(model, cluster, plan);
  StageCutter cutter;
  RETURN_IF_ERROR(cutter.Cut(coster, plan));
  return plan;
}

}  // namespace trireme
