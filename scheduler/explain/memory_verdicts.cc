// Why a candidate does not fit, and what makes it.

#include <algorithm>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "scheduler/explain/verdict_parts.h"
#include "scheduler/search/candidate_plan.h"
#include "scheduler/search/nothing_fits.h"

namespace trireme {
namespace {

// Changes of one field that save memory, the cheapest first.
std::vector<std::pair<std::string, Candidate>> Fixes(
    const PlannerInput& input, const Candidate& candidate) {
  std::vector<std::pair<std::string, Candidate>> fixes;
  auto add = [&](std::string text, auto edit) {
    Candidate changed = candidate;
    edit(changed);
    fixes.emplace_back(std::move(text), changed);
  };
  if (candidate.tp > 1 && !candidate.sequence_parallel) {
    add("sequence_parallel: true",
        [](Candidate& c) { c.sequence_parallel = true; });
  }
  for (const Plan::Sharding sharding :
       {Plan::OPTIMIZER, Plan::GRADIENTS, Plan::PARAMETERS}) {
    if (candidate.dp > 1 && sharding > candidate.sharding) {
      add(fmt::format("sharding: {}", Plan::Sharding_Name(sharding)),
          [&](Candidate& c) { c.sharding = sharding; });
    }
  }
  if (candidate.recompute == Plan::NONE) {
    add("recompute: SELECTIVE",
        [](Candidate& c) { c.recompute = Plan::SELECTIVE; });
  }
  for (int32_t size = candidate.microbatch_size / 2; size >= 1; size /= 2) {
    add(fmt::format("microbatch_size: {}", size),
        [&](Candidate& c) { c.microbatch_size = size; });
  }
  if (candidate.recompute != Plan::FULL) {
    add("recompute: FULL", [](Candidate& c) { c.recompute = Plan::FULL; });
  }
  for (const int32_t factor : {2, 4, 8}) {
    if (candidate.dp % factor != 0) continue;
    if (input.model.heads % (candidate.tp * factor) == 0 &&
        input.model.mlp_hidden % (candidate.tp * factor) == 0) {
      add(fmt::format("tp: {}, dp: {}", candidate.tp * factor,
                      candidate.dp / factor),
          [&](Candidate& c) {
            c.tp *= factor;
            c.dp /= factor;
          });
    }
    add(fmt::format("pp: {}, dp: {}", candidate.pp * factor,
                    candidate.dp / factor),
        [&](Candidate& c) {
          c.pp *= factor;
          c.dp /= factor;
        });
  }
  if (MayMoveInputs(candidate)) {
    add("offload { activations: true }",
        [](Candidate& c) { c.activations = true; });
  }
  if (!candidate.offload) {
    add(candidate.dp > 1 ? "offload, sharding: PARAMETERS" : "offload",
        [](Candidate& c) {
          c.offload = true;
          if (c.dp > 1) c.sharding = Plan::PARAMETERS;
          c.resident_units = 1;
        });
  }
  return fixes;
}

// "512 MB", "1.5 GB".
std::string SizeText(int64_t bytes) {
  return bytes < 1'000'000'000
             ? fmt::format("{:.0f} MB", static_cast<double>(bytes) / 1e6)
             : fmt::format("{:.1f} GB", static_cast<double>(bytes) / 1e9);
}

}  // namespace

absl::StatusOr<Estimate> EstimateOf(const PlannerInput& input,
                                    const PlanReport& report,
                                    const Candidate& candidate) {
  ASSIGN_OR_RETURN(const Plan plan,
                   PlanOfCandidate(input.model, report.cluster,
                                   input.global_batch, candidate));
  return EstimatePlan(input.model, report.cluster, plan);
}

std::string MemoryText(const PlannerInput& input, const PlanReport& report,
                       const Candidate& candidate) {
  std::string text =
      fmt::format("OOM({} {} on pipeline rank {}",
                  candidate.simulated ? "by" : "by at least",
                  SizeText(candidate.over_bytes), candidate.pp_rank);
  const absl::StatusOr<Estimate> estimate =
      EstimateOf(input, report, candidate);
  if (estimate.ok()) {
    const MemoryBytes& peak = estimate->peak[candidate.pp_rank];
    const MemoryBytesOf& largest =
        *std::max_element(kMemoryCategories.begin(), kMemoryCategories.end(),
                          [&](const MemoryBytesOf& a, const MemoryBytesOf& b) {
                            return peak.*a.bytes < peak.*b.bytes;
                          });
    text += fmt::format("; largest: {} {} of {}", largest.name,
                        SizeText(peak.*largest.bytes), SizeText(peak.total()));
  }
  for (const auto& [fix, changed] : Fixes(input, candidate)) {
    const absl::StatusOr<Estimate> fixed = EstimateOf(input, report, changed);
    if (fixed.ok() && Fits(*fixed)) {
      return text + fmt::format("; fits with {})", fix);
    }
  }
  return text + "; no single change makes it fit)";
}

std::string HostMemoryText(const PlannerInput& input, const PlanReport& report,
                           const Candidate& candidate) {
  const std::string code =
      fmt::format("HOST_OOM({} by at least", SizeText(candidate.over_bytes));
  const absl::StatusOr<Estimate> estimate =
      EstimateOf(input, report, candidate);
  if (!estimate.ok() || estimate->host_overflow.node < 0) return code + ")";
  const ClusterNode& node = report.cluster.nodes[estimate->host_overflow.node];
  return fmt::format(
      "HOST_OOM({} needs {} for parameters, gradients{} and optimizer of what "
      "is offloaded, and has {}{})",
      node.name,
      SizeText(node.host_memory_bytes + estimate->host_overflow.bytes),
      candidate.activations ? ", inputs" : "", SizeText(node.host_memory_bytes),
      WhyNotOnDrive(input, report.cluster, candidate));
}

}  // namespace trireme
