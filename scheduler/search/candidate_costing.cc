#include "scheduler/search/candidate_costing.h"

#include <algorithm>

#include "runtime/core/status.h"
#include "scheduler/costs/host_memory.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/placement/placement.h"
#include "scheduler/program/program.h"
#include "scheduler/search/lower_bounds.h"
#include "scheduler/search/memory_fit.h"

namespace trireme {
namespace {

// Devices along fast links.
std::vector<int32_t> ChainedRanks(const ClusterModel& cluster) {
  std::vector<int32_t> ranks;
  for (const int32_t node : NodeChain(cluster)) {
    for (int32_t i = 0; i < cluster.nodes[node].count; ++i) {
      ranks.push_back(cluster.nodes[node].first_rank + i);
    }
  }
  return ranks;
}

bool NodesAreAlike(const ClusterModel& cluster) {
  const ClusterNode& first = cluster.nodes.front();
  return std::all_of(
      cluster.nodes.begin(), cluster.nodes.end(), [&](const ClusterNode& node) {
        return node.device == first.device && node.link == first.link &&
               node.island_devices == first.island_devices &&
               node.island_link == first.island_link &&
               node.slowdown == first.slowdown;
      });
}

// Whether groups of so many ranks in order are each on as few nodes, and
// islands of them, as anywhere.
bool GroupsTile(const ClusterModel& cluster, int32_t ranks) {
  const int32_t count = cluster.nodes.front().count;
  const bool nodes_tile =
      ranks % count == 0 &&
      std::all_of(
          cluster.nodes.begin(), cluster.nodes.end(),
          [count](const ClusterNode& node) { return node.count == count; });
  return nodes_tile ||
         std::all_of(cluster.nodes.begin(), cluster.nodes.end(),
                     [ranks](const ClusterNode& node) {
                       const int32_t island = node.island_devices;
                       return node.count % ranks == 0 &&
                              (island == 0 || island % ranks == 0 ||
                               ranks % island == 0);
                     });
}

bool LinksAreAlike(const ClusterModel& cluster) {
  for (int32_t from = 0; from < cluster.num_nodes(); ++from) {
    for (int32_t to = 0; to < cluster.num_nodes(); ++to) {
      if (from != to && cluster.LinkBetweenNodes(from, to) !=
                            cluster.LinkBetweenNodes(0, 1)) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace

CandidateCosting::CandidateCosting(const ModelShape& model,
                                   const ClusterModel& cluster,
                                   int64_t global_batch)
    : model_(model),
      cluster_(cluster),
      global_batch_(global_batch),
      best_case_(BestCase(cluster)),
      best_node_(BestNode(cluster)),
      nodes_alike_(NodesAreAlike(cluster)),
      links_alike_(LinksAreAlike(cluster)),
      ranks_(ChainedRanks(cluster)),
      divisions_(model) {}

absl::StatusOr<Plan> CandidateCosting::UncutPlanOf(
    const Candidate& candidate) const {
  ASSIGN_OR_RETURN(Plan plan,
                   UncutPlan(model_, cluster_, global_batch_, candidate));
  PlaceAt(ranks_, plan);
  return plan;
}

absl::StatusOr<Plan> CandidateCosting::PlanOf(size_t index,
                                              const Candidate& candidate) {
  ASSIGN_OR_RETURN(Plan plan, UncutPlanOf(candidate));
  const auto fitted = fitted_.find(index);
  if (fitted != fitted_.end()) {
    *plan.mutable_placement() = fitted->second.placement();
    *plan.mutable_stages() = fitted->second.stages();
    return plan;
  }
  const PlanCoster coster = CosterOf(plan);
  RETURN_IF_ERROR(cutter_.Cut(coster, plan));
  return plan;
}

PlanCoster CandidateCosting::CosterOf(const Plan& plan, Devices devices) {
  const Plan::Grid& grid = plan.grid();
  std::shared_ptr<const PlanRings>& rings =
      rings_[std::tuple(devices, grid.tp(), grid.cp(), grid.dp(), grid.pp(),
                        grid.ep(), plan.shard_group())];
  const ClusterModel& cluster = devices == Devices::kAsTheyAre  ? cluster_
                                : devices == Devices::kBestCase ? best_case_
                                                                : best_node_;
  PlanCoster coster(model_, cluster, plan, rings);
  rings = coster.rings();
  return coster;
}

absl::StatusOr<double> CandidateCosting::Cost(size_t index,
                                              Candidate& candidate) {
  absl::StatusOr<Plan> found = UncutPlanOf(candidate);
  if (!found.ok()) {
    candidate.verdict = VerdictCode::kUnsupported;
    return 0;
  }
  Plan& plan = *found;
  const PlanCoster coster = CosterOf(plan);
  RETURN_IF_ERROR(cutter_.Cut(coster, plan));
  PlanCosts costs = coster.CostsOf(0);
  const std::vector<int32_t>& in_flight = in_flight_.Of(plan);
  if (candidate.offload) {
    candidate.resident_units = ChooseResidentUnits(plan, costs, in_flight);
    plan.mutable_offload()->set_resident_units(
        static_cast<uint32_t>(candidate.resident_units));
    const HostOverflow host =
        WorstHostOverflow(cluster_, plan, costs.host_bytes);
    if (host.bytes > 0 && !MoveToDrive(plan, costs)) {
      candidate.verdict = VerdictCode::kHostOutOfMemory;
      candidate.over_bytes = host.bytes;
      return 0;
    }
    candidate.drive = plan.offload().has_nvme();
    candidate.host_units =
        static_cast<int32_t>(plan.offload().nvme().host_units());
  }
  Overflow overflow = LeastOverflow(plan, costs, in_flight);
  if (overflow.bytes > 0 && MayMoveInputs(candidate)) {
    overflow = MoveInputsToHost(in_flight, plan, costs);
    candidate.activations = true;
    candidate.resident_units =
        static_cast<int32_t>(plan.offload().resident_units());
  }
  if (overflow.bytes > 0) {
    const MemoryFit fit(model_, cluster_, in_flight);
    ASSIGN_OR_RETURN(const bool fits, fit.Fit(ranks_, cutter_, plan, costs));
    if (fits) {
      fitted_.emplace(index, plan);
      overflow = {};
    }
  }
  if (overflow.bytes > 0) {
    candidate.verdict = VerdictCode::kOutOfMemory;
    candidate.over_bytes = overflow.bytes;
    candidate.pp_rank = overflow.pp;
    return 0;
  }
  const double likely_s = LikelySeconds(plan, costs);
  ASSIGN_OR_RETURN(candidate.step_s, BoundOf(candidate, plan, costs));
  divisions_.Add(candidate, plan, costs);
  return likely_s;
}

Overflow CandidateCosting::MoveInputsToHost(
    const std::vector<int32_t>& in_flight, Plan& plan, PlanCosts& costs) const {
  plan.mutable_offload()->set_activations(true);
  costs = PlanCoster(model_, cluster_, plan).CostsOf(0);
  plan.mutable_offload()->set_resident_units(
      static_cast<uint32_t>(ChooseResidentUnits(plan, costs, in_flight)));
  return LeastOverflow(plan, costs, in_flight);
}

bool CandidateCosting::MoveToDrive(Plan& plan, PlanCosts& costs) const {
  const std::string folder = DriveFolderOf(cluster_);
  if (folder.empty()) return false;
  Plan moved = plan;
  Plan::Offload::Nvme& nvme = *moved.mutable_offload()->mutable_nvme();
  nvme.set_folder(folder);
  PlanCosts with_drive;
  const auto fits = [&](int64_t host_units) {
    nvme.set_host_units(static_cast<uint32_t>(host_units));
    with_drive = PlanCoster(model_, cluster_, moved).CostsOf(0);
    return WorstHostOverflow(cluster_, moved, with_drive.host_bytes).bytes <=
               0 &&
           WorstDriveOverflow(cluster_, moved, with_drive.drive_bytes).bytes <=
               0;
  };
  if (!model_.trained_leaves || !fits(0)) {
    // No more than the fullest rank has, however the blocks are cut.
    const int64_t most = CeilDivide(model_.layers, moved.grid().pp());
    int64_t units = std::min<int64_t>(Offload::kHostUnits, most);
    // With fewer what is done with them does not hide, but is done.
    while (units > 0 && !fits(units)) --units;
    if (units == 0) return false;
    // The more the host holds, the fewer are read.
    for (int64_t beyond = most; beyond - units > 1;) {
      const int64_t middle = (units + beyond) / 2;
      (fits(middle) ? units : beyond) = middle;
    }
    fits(units);
  }
  plan = std::move(moved);
  costs = std::move(with_drive);
  return true;
}

absl::StatusOr<double> CandidateCosting::BoundOf(const Candidate& candidate,
                                                 Plan& plan, PlanCosts& costs) {
  const int32_t unit = candidate.tp * candidate.cp;
  const bool hosts_alike =
      !candidate.offload ||
      std::all_of(cluster_.nodes.begin(), cluster_.nodes.end(),
                  [this](const ClusterNode& node) {
                    const ClusterNode& first = cluster_.nodes.front();
                    return node.count == first.count &&
                           node.host_memory_bytes_per_s ==
                               first.host_memory_bytes_per_s &&
                           node.drive_bytes_per_s == first.drive_bytes_per_s;
                  });
  // Sums and gathers of offloaded blocks go with their copies, which no
  // placement hides.
  const int32_t sharers = candidate.offload ? unit * candidate.dp : unit;
  const bool tiled = GroupsTile(cluster_, unit) &&
                     GroupsTile(cluster_, sharers) &&
                     GroupsTile(cluster_, candidate.ep);
  // Groups of several nodes take the links that another placement may choose.
  const bool crosses =
      std::max(sharers, candidate.ep) > cluster_.nodes.front().count;
  if (!tiled || !nodes_alike_ || !hosts_alike || (crosses && !links_alike_)) {
    const PlanCoster fastest =
        CosterOf(plan, tiled ? Devices::kBestCase : Devices::kBestNode);
    RETURN_IF_ERROR(cutter_.Cut(fastest, plan));
    costs = fastest.CostsOf(0);
  }
  // What stages do is the same everywhere, but for sharded gradients and
  // parameters, which a better placement may hide.
  for (size_t pp = 0; pp < costs.cost.chunks.size(); ++pp) {
    for (size_t i = 0; i < costs.cost.chunks[pp].size(); ++i) {
      ChunkCost& chunk = costs.cost.chunks[pp][i];
      ChunkParts& parts = costs.parts[pp][i];
      // However it is divided between the passes.
      const double forward_s = std::max(0.0, chunk.forward_s - parts.dp_s);
      chunk.backward_s += chunk.forward_s - forward_s - parts.dp_s;
      chunk.forward_s = forward_s;
      parts.dp_s = 0;
    }
  }
  return StepLowerBound(plan, costs);
}

}  // namespace trireme
