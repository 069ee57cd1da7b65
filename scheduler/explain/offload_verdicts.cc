// Why a plan does not offload, which the search looks into only where nothing
// fits otherwise.

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "scheduler/costs/host_memory.h"
#include "scheduler/explain/verdict_parts.h"

namespace trireme {
namespace {

// What its devices wait for that those of a plan without offload do not.
std::string WaitsText(const PlannerInput& input, const PlanReport& report,
                      const Candidate& candidate) {
  const absl::StatusOr<Estimate> estimate =
      EstimateOf(input, report, candidate);
  if (!estimate.ok()) return "";
  return fmt::format(
      "; of its {:.4g} s devices wait {:.4g} s for copies and {:.4g} s for the "
      "host's optimizer",
      estimate->step_s, estimate->parts.copy_s, estimate->parts.optimizer_s);
}

}  // namespace

absl::StatusOr<std::string> WhyNotOffload(const PlannerInput& input,
                                          const PlanReport& report,
                                          const WhyQuery& query) {
  if (const absl::Status links = CheckHostLinks(report.cluster); !links.ok()) {
    return fmt::format("UNSUPPORTED({})\n", MessageOf(links));
  }
  PlannerInput only = input;
  only.options.space.offload = OffloadSearch::kOnly;
  const absl::StatusOr<PlanReport> offloaded = MakePlan(only);
  if (!offloaded.ok()) {
    return fmt::format("No plan with offload fits either: {}\n",
                       MessageOf(offloaded.status()));
  }
  const Candidate* nearest = NearestOf(*offloaded, query);
  if (nearest == nullptr) {
    return std::string("No such plan with offload was found to evaluate.\n");
  }
  Candidate fastest = *nearest;
  const RankedPlan& chosen = report.best.front();
  const bool runs = fastest.step_s > 0 &&
                    fastest.verdict != VerdictCode::kOutOfMemory &&
                    fastest.verdict != VerdictCode::kHostOutOfMemory;
  std::string verdict;
  if (runs && fastest.step_s < chosen.estimate.step_s) {
    verdict = fmt::format("{:.4g} s, faster than the chosen plan's {:.4g} s",
                          fastest.step_s, chosen.estimate.step_s);
  } else {
    if (runs) fastest.verdict = VerdictCode::kDominated;
    verdict = VerdictText(input, report, fastest);
  }
  if (runs) verdict += WaitsText(input, report, fastest);
  return fmt::format(
      "{}\n  not among the plans considered, as there are some that fit "
      "without; evaluated: {}\n",
      ToText(fastest), verdict);
}

}  // namespace trireme
