#include "scheduler/explain/verdicts.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "scheduler/costs/host_memory.h"
#include "scheduler/explain/verdict_parts.h"
#include "scheduler/schedules/schedule.h"
#include "scheduler/search/candidate_plan.h"
#include "scheduler/search/search.h"

namespace trireme {
namespace {

// `chosen` where its ranks may have so many chunks, else one whose may.
Plan::Schedule ScheduleWithChunks(int32_t chunks, Plan::Schedule chosen) {
  const auto may_have = [chunks](const Schedule& schedule) {
    return chunks <= schedule.most_chunks;
  };
  if (may_have(*FindSchedule(chosen))) return chosen;
  const auto schedules = AllSchedules();
  const auto found = std::find_if(schedules.begin(), schedules.end(), may_have);
  return found == schedules.end() ? chosen : found->id;
}

// The plan that a question means where none of those considered matches: the
// chosen plan's fields but for what was tried on it alone, with the given ones.
Candidate MeantBy(const WhyQuery& query, const Candidate& chosen,
                  int64_t devices) {
  Candidate meant;
  meant.tp = query.tp.value_or(chosen.tp);
  meant.cp = query.cp.value_or(chosen.cp);
  meant.pp = query.pp.value_or(chosen.pp);
  const auto left = [&](int32_t taken) {
    return devices % taken == 0 ? static_cast<int32_t>(devices / taken) : 1;
  };
  // Data parallelism takes the devices that are left; then what was not asked
  // for gives way.
  meant.dp = query.dp.value_or(left(meant.tp * meant.cp * meant.pp));
  const auto fits = [&] {
    return int64_t{meant.tp} * meant.cp * meant.pp * meant.dp == devices;
  };
  if (!fits() && !query.pp.has_value()) {
    meant.pp = left(meant.tp * meant.cp * meant.dp);
  }
  if (!fits() && !query.cp.has_value()) {
    meant.cp = 1;
    if (!query.pp.has_value()) meant.pp = left(meant.tp * meant.dp);
  }
  if (!fits() && !query.dp.has_value()) {
    meant.dp = left(meant.tp * meant.cp * meant.pp);
  }
  meant.ep = query.ep.value_or(
      meant.tp * meant.cp * meant.dp % chosen.ep == 0 ? chosen.ep : 1);
  meant.ulysses = query.ulysses.value_or(
      meant.cp % chosen.ulysses == 0 ? chosen.ulysses : 1);
  meant.schedule = query.schedule.value_or(
      ScheduleWithChunks(query.chunks.value_or(1), chosen.schedule));
  const Schedule& schedule = *FindSchedule(meant.schedule);
  meant.chunks = query.chunks.value_or(
      std::clamp(chosen.chunks, schedule.default_chunks, schedule.most_chunks));
  meant.microbatch_size =
      query.microbatch_size.value_or(chosen.microbatch_size);
  meant.sharding = query.sharding.value_or(chosen.sharding);
  meant.recompute = query.recompute.value_or(chosen.recompute);
  meant.sequence_parallel = query.sequence_parallel.value_or(
      meant.tp > 1 && chosen.sequence_parallel);
  return meant;
}

// Costs a plan that was not enumerated.
std::string Evaluated(const PlannerInput& input, const PlanReport& report,
                      const WhyQuery& query) {
  const RankedPlan& best = report.best.front();
  Candidate meant = MeantBy(query, best.candidate, report.cluster.num_ranks());
  const std::string head =
      ToText(meant) + "\n  not among the plans considered; evaluated: ";
  const absl::StatusOr<Estimate> estimate = EstimateOf(input, report, meant);
  if (!estimate.ok()) {
    return head +
           fmt::format("UNSUPPORTED({})\n", MessageOf(estimate.status()));
  }
  meant.simulated = true;
  meant.step_s = estimate->step_s;
  const Overflow overflow = WorstOverflow(*estimate);
  if (overflow.bytes > 0) {
    meant.verdict = VerdictCode::kOutOfMemory;
    meant.over_bytes = overflow.bytes;
    meant.pp_rank = overflow.pp;
  } else if (meant.step_s < best.estimate.step_s) {
    return head +
           fmt::format("{:.4g} s, faster than the chosen plan's {:.4g} s\n",
                       meant.step_s, best.estimate.step_s);
  } else {
    meant.verdict = VerdictCode::kDominated;
  }
  return head + VerdictText(input, report, meant) + "\n";
}

// Of a candidate that a bound left out: by how much it is slower indeed, where
// it can be simulated and is.
Candidate Simulated(const PlannerInput& input, const PlanReport& report,
                    Candidate candidate) {
  const absl::StatusOr<Estimate> estimate =
      EstimateOf(input, report, candidate);
  if (!estimate.ok() || !Fits(*estimate) ||
      estimate->step_s < report.best.front().estimate.step_s) {
    return candidate;
  }
  candidate.simulated = true;
  candidate.step_s = estimate->step_s;
  return candidate;
}

}  // namespace

bool Nearer(const Candidate& a, const Candidate& b) {
  auto rank = [](const Candidate& c) {
    const bool memory = c.verdict == VerdictCode::kOutOfMemory ||
                        c.verdict == VerdictCode::kHostOutOfMemory;
    return memory ? 1 : c.step_s > 0 ? 0 : 2;
  };
  if (rank(a) != rank(b)) return rank(a) < rank(b);
  if (rank(a) == 1) return a.over_bytes < b.over_bytes;
  if (a.simulated != b.simulated) return a.simulated;
  return a.step_s < b.step_s;
}

std::string VerdictText(const PlannerInput& input, const PlanReport& report,
                        const Candidate& candidate) {
  const RankedPlan& best = report.best.front();
  const double slower = 100 * (candidate.step_s / best.estimate.step_s - 1);
  switch (candidate.verdict) {
    case VerdictCode::kChosen:
      return fmt::format("CHOSEN: {:.4g} s", best.estimate.step_s);
    case VerdictCode::kDominated:
      return fmt::format("DOMINATED(by {}, {} {:.1f} %)",
                         ToText(best.candidate),
                         candidate.simulated ? "by" : "by at least", slower);
    case VerdictCode::kUnlikely:
      return fmt::format(
          "UNLIKELY(not simulated, as likelier plans used the budget: takes at "
          "least {:.4g} s, the chosen {:.4g} s)",
          candidate.step_s, best.estimate.step_s);
    case VerdictCode::kOutOfMemory:
      return MemoryText(input, report, candidate);
    case VerdictCode::kHostOutOfMemory:
      return HostMemoryText(input, report, candidate);
    case VerdictCode::kIndivisible:
      return fmt::format("INDIVISIBLE({})", candidate.indivisible);
    case VerdictCode::kTpCrossesNode:
      return fmt::format(
          "TP_CROSSES_NODE(tp {} does not divide every node's devices)",
          candidate.tp);
    case VerdictCode::kBatchTooSmall:
      return fmt::format("BATCH_TOO_SMALL({} samples for dp {})",
                         input.global_batch, candidate.dp);
    case VerdictCode::kTooFewBlocks:
      return fmt::format("TOO_FEW_BLOCKS({} for {} stages)", input.model.layers,
                         candidate.pp * candidate.chunks);
    case VerdictCode::kUnsupported:
      return fmt::format(
          "UNSUPPORTED({})",
          MessageOf(PlanOfCandidate(input.model, report.cluster,
                                    input.global_batch, candidate)
                        .status()));
    case VerdictCode::kPending:
      break;
  }
  return std::string(VerdictCodeName(candidate.verdict));
}

namespace {

// The candidate that answers the question best; null: none matches.
const Candidate* NearestOf(const PlanReport& report, const WhyQuery& query) {
  const Candidate* nearest = nullptr;
  for (const Candidate& candidate : report.candidates) {
    if (!Matches(candidate, query)) continue;
    if (nearest == nullptr || Nearer(candidate, *nearest)) nearest = &candidate;
  }
  return nearest;
}

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

// Why not such a plan with offload, which the search looks into only where
// nothing fits otherwise: the fastest of them, beside the chosen plan.
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
  // Of the candidate as it is said here: what the search refines (blocks that
  // stay on the device) would be a plan that hardly offloads.
  if (const absl::StatusOr<Estimate> estimate =
          EstimateOf(input, report, fastest);
      runs && estimate.ok()) {
    fastest.step_s = estimate->step_s;
  }
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

}  // namespace

absl::StatusOr<std::string> Why(const PlannerInput& input,
                                const PlanReport& report,
                                const WhyQuery& query) {
  const Candidate* nearest = NearestOf(report, query);
  if (nearest == nullptr) {
    if (query.offload.value_or(false)) {
      return WhyNotOffload(input, report, query);
    }
    return Evaluated(input, report, query);
  }
  std::map<VerdictCode, int64_t> counts;
  for (const Candidate& candidate : report.candidates) {
    if (Matches(candidate, query)) ++counts[candidate.verdict];
  }
  std::vector<std::string> parts;
  for (const auto& [code, count] : counts) {
    parts.push_back(fmt::format("{} {}", count, VerdictCodeName(code)));
  }
  const bool by_bound =
      nearest->verdict == VerdictCode::kDominated && !nearest->simulated;
  return fmt::format(
      "{}\n  {}\n  of such plans: {}\n", ToText(*nearest),
      VerdictText(input, report,
                  by_bound ? Simulated(input, report, *nearest) : *nearest),
      fmt::join(parts, ", "));
}

}  // namespace trireme
