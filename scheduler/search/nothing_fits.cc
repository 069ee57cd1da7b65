#include "scheduler/search/nothing_fits.h"

#include <string>
#include <string_view>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "scheduler/costs/estimate.h"
#include "scheduler/costs/host_memory.h"
#include "scheduler/costs/plan_costs.h"
#include "scheduler/program/validator.h"
#include "scheduler/search/candidate_plan.h"

namespace trireme {
namespace {

constexpr double kGigabyte = 1e9;

}  // namespace

std::string WhyNotOnDrive(const PlannerInput& input,
                          const ClusterModel& cluster, Candidate candidate) {
  const std::string_view contents =
      input.model.trained_leaves ? "optimizer and most blocks" : "most blocks";
  if (DriveFolderOf(cluster).empty()) {
    return fmt::format(
        "; the cluster names no drive_folder, where {} could lie "
        "(trireme profile --drive)",
        contents);
  }
  candidate.drive = true;
  candidate.host_units = 1;
  const absl::StatusOr<Plan> plan =
      PlanOfCandidate(input.model, cluster, input.global_batch, candidate);
  if (!plan.ok()) return "";
  const PlanCosts costs = PlanCoster(input.model, cluster, *plan).CostsOf(0);
  const auto needs = [](int64_t has, const HostOverflow& overflow) {
    return static_cast<double>(has + overflow.bytes) / kGigabyte;
  };
  const HostOverflow drive =
      WorstDriveOverflow(cluster, *plan, costs.drive_bytes);
  if (drive.node >= 0) {
    const ClusterNode& node = cluster.nodes[drive.node];
    return fmt::format(
        "; {} would take {:.1f} GB of the drive of {}, of which {:.1f} GB are "
        "free",
        contents, needs(node.drive_free_bytes, drive), node.name,
        static_cast<double>(node.drive_free_bytes) / kGigabyte);
  }
  const HostOverflow host = WorstHostOverflow(cluster, *plan, costs.host_bytes);
  if (host.node < 0) return "";
  return fmt::format("; with {} on its drive {} still needs {:.1f} GB",
                     contents, cluster.nodes[host.node].name,
                     needs(cluster.nodes[host.node].host_memory_bytes, host));
}

absl::Status NothingFits(const PlannerInput& input, const ClusterModel& cluster,
                         const std::vector<Candidate>& candidates) {
  const auto nearest_of = [&](VerdictCode verdict) {
    const Candidate* nearest = nullptr;
    for (const Candidate& candidate : candidates) {
      if (candidate.verdict == verdict &&
          (nearest == nullptr || candidate.over_bytes < nearest->over_bytes)) {
        nearest = &candidate;
      }
    }
    return nearest;
  };
  const Candidate* nearest = nearest_of(VerdictCode::kOutOfMemory);
  const Candidate* on_host = nearest_of(VerdictCode::kHostOutOfMemory);
  const std::string hosts =
      on_host == nullptr
          ? ""
          : fmt::format(
                "; with offload over a host's memory by {:.1f} GB: {}{}",
                static_cast<double>(on_host->over_bytes) / kGigabyte,
                ToText(*on_host), WhyNotOnDrive(input, cluster, *on_host));
  if (nearest == nullptr && on_host != nullptr) {
    return ResourceExhausted(
        "planner: found no plan that fits devices and hosts, expected one{}",
        hosts);
  }
  if (nearest == nullptr) {
    return NotFound(
        "planner: found no way to divide {} layers, {} heads, {} tokens and "
        "a "
        "global batch of {} over {} devices, expected one",
        input.model.layers, input.model.heads, input.model.tokens,
        input.global_batch, cluster.num_ranks());
  }
  ASSIGN_OR_RETURN(
      const Plan plan,
      PlanOfCandidate(input.model, cluster, input.global_batch, *nearest));
  ASSIGN_OR_RETURN(const Estimate estimate,
                   EstimatePlan(input.model, cluster, plan));
  const absl::Status memory = ValidateMemory(estimate.program, estimate.memory);
  return ResourceExhausted(
      "planner: found no plan that fits the devices' memory, expected one; "
      "nearest, over by at least {}: {}{}{}",
      nearest->over_bytes < kGigabyte / 10
          ? fmt::format(
                "{:.3g} MB",
                1000 * static_cast<double>(nearest->over_bytes) / kGigabyte)
          : fmt::format("{:.1f} GB",
                        static_cast<double>(nearest->over_bytes) / kGigabyte),
      ToText(*nearest),
      memory.ok() ? ""
                  : fmt::format(": pipeline {}", std::string(memory.message())),
      hosts);
}

}  // namespace trireme
