#include "scheduler/costs/estimate.h"

#include <algorithm>

#include "runtime/core/status.h"
#include "scheduler/costs/replicas.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.h"
#include "scheduler/program/compile.h"

namespace trireme {
namespace {

StepParts PartsOf(const Plan& plan, const PlanCosts& costs,
                  const Estimate& estimate) {
  StepParts parts;
  const double n = plan.microbatches();
  for (size_t pp = 0; pp < costs.cost.chunks.size(); ++pp) {
    const RankTime& time = estimate.simulation.ranks[pp];
    StepParts rank;
    rank.pp_s = time.exposed_message_s;
    rank.dp_s = time.exposed_other_s;
    rank.copy_s = time.exposed_copy_s;
    rank.bubble_s = time.bubble_s;
    rank.optimizer_s = time.exposed_host_s;
    for (const Instruction& instruction : estimate.program.ranks[pp]) {
      if (instruction.kind == InstructionKind::kUpdate &&
          instruction.resource == Resource::kCompute) {
        rank.optimizer_s += costs.cost.chunks[pp][instruction.chunk].update_s;
      }
    }
    for (const ChunkParts& chunk : costs.parts[pp]) {
      rank.tp_s += n * chunk.tp_s;
      rank.cp_s += n * chunk.cp_s;
      rank.ep_s += n * chunk.ep_s;
      rank.dp_s += n * chunk.dp_s;
      rank.recompute_s += n * chunk.recompute_s;
    }
    rank.optimizer_s += costs.cost.clip_s;
    rank.compute_s = estimate.step_s - rank.total();
    for (const auto& [name, part] : kStepParts) parts.*part += rank.*part;
  }
  const auto ranks = static_cast<double>(costs.cost.chunks.size());
  for (const auto& [name, part] : kStepParts) parts.*part /= ranks;
  return parts;
}

}  // namespace

absl::StatusOr<Estimate> EstimatePlan(const ModelShape& model,
                                      const ClusterModel& cluster,
                                      const Plan& plan) {
  RETURN_IF_ERROR(CheckModelShape(model));
  if (GridSize(plan.grid()) != cluster.num_ranks()) {
    return InvalidArgument(
        "plan.grid: found {} ranks, expected the cluster's {} devices",
        GridSize(plan.grid()), cluster.num_ranks());
  }
  if (plan.has_offload()) RETURN_IF_ERROR(CheckHostLinks(cluster));
  return EstimateOfCosts(model, cluster, plan,
                         CostsOfReplicas(model, cluster, plan));
}

std::vector<PlanCosts> CostsOfReplicas(const ModelShape& model,
                                       const ClusterModel& cluster,
                                       const Plan& plan) {
  const PlanCoster coster(model, cluster, plan);
  std::vector<PlanCosts> costs;
  for (int32_t replica = 0; replica < static_cast<int32_t>(plan.grid().dp());
       ++replica) {
    costs.push_back(coster.CostsOf(replica));
  }
  return costs;
}

absl::StatusOr<Estimate> EstimateOfCosts(const ModelShape& model,
                                         const ClusterModel& cluster,
                                         const Plan& plan,
                                         const std::vector<PlanCosts>& costs) {
  Estimate estimate;
  ASSIGN_OR_RETURN(
      estimate.program,
      CompilePlan(plan, {.buckets_per_stage = costs.front().buckets}));
  std::vector<std::vector<double>> seen;
  for (const std::vector<int32_t>& group : ReplicasTogether(costs)) {
    std::vector<CostModel> together = CostsTogether(costs, group);
    std::vector<double> figures = FiguresOf(together);
    if (std::find(seen.begin(), seen.end(), figures) != seen.end()) continue;
    ASSIGN_OR_RETURN(
        std::vector<Simulation> simulations,
        SimulateReplicas(estimate.program, together, &costs[group[0]].memory));
    const std::vector<MemoryBytes> peak = simulations.front().peak_memory;
    for (size_t i = 0; i < simulations.size(); ++i) {
      if (!seen.empty() || i > 0) {
        if (simulations[i].step_s <= estimate.step_s) continue;
      }
      estimate.step_s = simulations[i].step_s;
      estimate.replica = group[i];
      estimate.simulation = std::move(simulations[i]);
      estimate.simulation.peak_memory = peak;
    }
    seen.push_back(std::move(figures));
  }
  const PlanCosts& slowest = costs[estimate.replica];
  estimate.parts = PartsOf(plan, slowest, estimate);
  estimate.peak = estimate.simulation.peak_memory;
  for (const RankMemory& rank : slowest.memory.ranks) {
    // When all gradients are on their way there are no activations any more.
    const size_t pp = estimate.limit.size();
    MemoryBytes end = rank.always;
    end.workspace = 0;
    end.communication = slowest.reduction_bytes[pp];
    if (end.total() > estimate.peak[pp].total()) estimate.peak[pp] = end;
    estimate.limit.push_back(rank.limit_bytes);
  }
  estimate.memory = slowest.memory;
  if (plan.has_offload()) {
    std::vector<int64_t> host_bytes = slowest.host_bytes;
    for (size_t pp = 0; pp < host_bytes.size(); ++pp) {
      host_bytes[pp] += InputBytesOnHost(
          estimate.program, static_cast<int32_t>(pp), slowest.memory.ranks[pp]);
    }
    estimate.host_bytes = HostBytesOfNodes(cluster, plan, host_bytes);
    estimate.host_overflow = WorstHostOverflow(cluster, plan, host_bytes);
    estimate.drive_bytes = HostBytesOfNodes(cluster, plan, slowest.drive_bytes);
    estimate.drive_overflow =
        WorstDriveOverflow(cluster, plan, slowest.drive_bytes);
  }
  const double batch = static_cast<double>(plan.grid().dp()) *
                       plan.microbatches() * plan.microbatch_size();
  estimate.samples_per_s = batch / estimate.step_s;
  double peak = 0;
  for (const int32_t node : cluster.node_of_rank) {
    peak += cluster.DeviceOfNode(node).PeakFlops(model.element_bytes);
  }
  estimate.mfu = ModelTrainingFlops(model) * estimate.samples_per_s / peak;
  return estimate;
}

Overflow WorstOverflow(const Estimate& estimate) {
  Overflow worst;
  for (size_t pp = 0; pp < estimate.peak.size(); ++pp) {
    const int64_t over = estimate.peak[pp].total() - estimate.limit[pp];
    if (over > worst.bytes) worst = {static_cast<int32_t>(pp), over};
  }
  return worst;
}

bool Fits(const Estimate& estimate) {
  return WorstOverflow(estimate).bytes <= 0 &&
         estimate.host_overflow.bytes <= 0 &&
         estimate.drive_overflow.bytes <= 0;
}

Plan::Prediction PredictionOf(const Plan& plan, const Estimate& estimate) {
  Plan::Prediction predicted;
  predicted.set_step_s(estimate.step_s);
  for (int64_t rank = 0; rank < GridSize(plan.grid()); ++rank) {
    *predicted.add_peak_bytes() =
        ToProto(estimate.peak[CoordinatesOf(plan.grid(), rank).pp]);
  }
  return predicted;
}

}  // namespace trireme
