#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "scheduler/plan.h"
#include "scheduler/planner/candidate_plan.h"
#include "scheduler/planner/search.h"

namespace trireme {
namespace {

std::string Size(int64_t bytes) {
  return bytes < 1'000'000'000
             ? fmt::format("{:.0f} MB", static_cast<double>(bytes) / 1e6)
             : fmt::format("{:.1f} GB", static_cast<double>(bytes) / 1e9);
}

absl::StatusOr<Estimate> EstimateOf(const PlannerInput& input,
                                    const ClusterModel& cluster,
                                    const Candidate& candidate) {
  ASSIGN_OR_RETURN(const Plan plan,
                   PlanOfCandidate(input.model, cluster, input.global_batch,
                                   input.traits, candidate));
  return EstimatePlan(input.model, cluster, plan, input.traits);
}

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
  return fixes;
}

std::string_view DimensionText(Dimension dimension) {
  switch (dimension) {
    case Dimension::kHeads:
      return "attention heads";
    case Dimension::kMlp:
      return "channels of the MLP";
    case Dimension::kTokens:
      return "tokens";
    case Dimension::kGlobalBatch:
      return "global batch";
    case Dimension::kMicrobatches:
      return "microbatches";
    case Dimension::kNone:
      break;
  }
  return "";
}

std::string MemoryText(const PlannerInput& input, const Candidate& candidate) {
  std::string text = fmt::format("OOM({} {} on pipeline rank {}",
                                 candidate.simulated ? "by" : "by at least",
                                 Size(candidate.over_bytes), candidate.pp_rank);
  const absl::StatusOr<ClusterModel> cluster = ResolveCluster(input.cluster);
  if (!cluster.ok()) return text + ")";
  const absl::StatusOr<Estimate> estimate =
      EstimateOf(input, *cluster, candidate);
  if (estimate.ok()) {
    const MemoryBytes& peak = estimate->peak[candidate.pp_rank];
    const std::array<std::pair<int64_t, const char*>, 6> items = {
        {{peak.parameters, "parameters"},
         {peak.gradients, "gradients"},
         {peak.optimizer, "optimizer"},
         {peak.activations, "activations"},
         {peak.communication, "communication"},
         {peak.workspace, "workspace"}}};
    const auto largest = *std::max_element(items.begin(), items.end());
    text += fmt::format("; largest: {} {} of {}", largest.second,
                        Size(largest.first), Size(peak.total()));
  }
  for (const auto& [fix, changed] : Fixes(input, candidate)) {
    const absl::StatusOr<Estimate> fixed = EstimateOf(input, *cluster, changed);
    if (fixed.ok() && WorstOverflow(*fixed).bytes <= 0) {
      return text + fmt::format("; fits with {})", fix);
    }
  }
  return text + "; no single change makes it fit)";
}

bool Matches(const Candidate& candidate, const WhyQuery& query) {
  auto same = [](const auto& wanted, const auto& value) {
    return !wanted.has_value() || *wanted == value;
  };
  return same(query.tp, candidate.tp) && same(query.cp, candidate.cp) &&
         same(query.ulysses, candidate.ulysses) &&
         same(query.sequence_parallel, candidate.sequence_parallel) &&
         same(query.pp, candidate.pp) && same(query.dp, candidate.dp) &&
         same(query.chunks, candidate.chunks) &&
         same(query.microbatch_size, candidate.microbatch_size) &&
         same(query.schedule, candidate.schedule) &&
         same(query.sharding, candidate.sharding) &&
         same(query.recompute, candidate.recompute);
}

// What no plan can have yet, if the query asks for it.
std::string Unsupported(const WhyQuery& query) {
  if (query.ep.value_or(1) != 1) {
    return fmt::format(
        "UNSUPPORTED(plan.grid.ep: found {}, expected 1: models have no "
        "experts and the runtime no expert parallelism)",
        *query.ep);
  }
  if (query.offload.value_or(false)) {
    return "UNSUPPORTED(offload: the runtime keeps parameters, optimizer and "
           "activations on the device)";
  }
  return "";
}

// The plan that a question means where none of those considered matches: the
// chosen plan's fields, with the given ones.
Candidate MeantBy(const WhyQuery& query, const Candidate& chosen,
                  int64_t devices) {
  Candidate meant = chosen;
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
  meant.ulysses = query.ulysses.value_or(
      meant.cp % chosen.ulysses == 0 ? chosen.ulysses : 1);
  meant.schedule = query.schedule.value_or(
      query.chunks.value_or(1) > 1 ? Plan::INTERLEAVED : chosen.schedule);
  meant.chunks = query.chunks.value_or(meant.schedule == Plan::INTERLEAVED ||
                                               meant.schedule == Plan::ZB_V
                                           ? std::max(2, chosen.chunks)
                                           : 1);
  meant.microbatch_size =
      query.microbatch_size.value_or(chosen.microbatch_size);
  meant.sharding = query.sharding.value_or(chosen.sharding);
  meant.recompute = query.recompute.value_or(chosen.recompute);
  meant.sequence_parallel = query.sequence_parallel.value_or(
      meant.tp > 1 && chosen.sequence_parallel);
  meant.shard_group = meant.microbatch_group = meant.recompute_blocks = 0;
  meant.verdict = VerdictCode::kPending;
  return meant;
}

// Costs a plan that was not enumerated.
absl::StatusOr<std::string> Evaluated(const PlannerInput& input,
                                      const PlanReport& report,
                                      const WhyQuery& query) {
  ASSIGN_OR_RETURN(const ClusterModel cluster, ResolveCluster(input.cluster));
  const RankedPlan& best = report.best.front();
  Candidate meant = MeantBy(query, best.candidate, cluster.num_ranks());
  const std::string head =
      ToText(meant) + "\n  not among the plans considered; evaluated: ";
  const absl::StatusOr<Estimate> estimate = EstimateOf(input, cluster, meant);
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

// Which of two candidates answers a question better.
bool Nearer(const Candidate& a, const Candidate& b) {
  auto rank = [](const Candidate& c) {
    const bool runs = c.step_s > 0 && c.verdict != VerdictCode::kOutOfMemory;
    return runs ? 0 : c.verdict == VerdictCode::kOutOfMemory ? 1 : 2;
  };
  if (rank(a) != rank(b)) return rank(a) < rank(b);
  if (rank(a) == 1) return a.over_bytes < b.over_bytes;
  if (a.simulated != b.simulated) return a.simulated;
  return a.step_s < b.step_s;
}

}  // namespace

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
      return MemoryText(input, candidate);
    case VerdictCode::kIndivisible:
      return fmt::format("INDIVISIBLE({})", DimensionText(candidate.dimension));
    case VerdictCode::kTpCrossesNode:
      return fmt::format(
          "TP_CROSSES_NODE(tp {} does not divide every node's devices)",
          candidate.tp);
    case VerdictCode::kBatchTooSmall:
      return candidate.dp > input.global_batch
                 ? fmt::format("BATCH_TOO_SMALL({} samples for dp {})",
                               input.global_batch, candidate.dp)
                 : fmt::format(
                       "BATCH_TOO_SMALL({} samples of a replica for a "
                       "microbatch of {})",
                       input.global_batch / candidate.dp,
                       candidate.microbatch_size);
    case VerdictCode::kTooFewBlocks:
      return fmt::format("TOO_FEW_BLOCKS({} for {} stages)", input.model.layers,
                         candidate.pp * candidate.chunks);
    case VerdictCode::kUnsupported: {
      const absl::StatusOr<ClusterModel> cluster =
          ResolveCluster(input.cluster);
      if (!cluster.ok()) break;
      return fmt::format(
          "UNSUPPORTED({})",
          MessageOf(PlanOfCandidate(input.model, *cluster, input.global_batch,
                                    input.traits, candidate)
                        .status()));
    }
    case VerdictCode::kPending:
      break;
  }
  return std::string(VerdictCodeName(candidate.verdict));
}

absl::StatusOr<std::string> Why(const PlannerInput& input,
                                const PlanReport& report,
                                const WhyQuery& query) {
  const std::string unsupported = Unsupported(query);
  if (!unsupported.empty()) return unsupported + "\n";
  const Candidate* nearest = nullptr;
  std::map<VerdictCode, int64_t> counts;
  for (const Candidate& candidate : report.candidates) {
    if (!Matches(candidate, query)) continue;
    ++counts[candidate.verdict];
    if (nearest == nullptr || Nearer(candidate, *nearest)) {
      nearest = &candidate;
    }
  }
  if (nearest == nullptr) return Evaluated(input, report, query);
  std::vector<std::string> parts;
  for (const auto& [code, count] : counts) {
    parts.push_back(fmt::format("{} {}", count, VerdictCodeName(code)));
  }
  return fmt::format("{}\n  {}\n  of such plans: {}\n", ToText(*nearest),
                     VerdictText(input, report, *nearest),
                     fmt::join(parts, ", "));
}

namespace {

// The pairs of nodes, and insides of nodes, over which the plan's messages and
// rings go.
std::set<std::pair<int32_t, int32_t>> UsedLinks(const ClusterModel& cluster,
                                                const Plan& plan) {
  std::set<std::pair<int32_t, int32_t>> links;
  const Plan::Grid& grid = plan.grid();
  auto node_of = [&](int64_t tp, int64_t cp, int64_t dp, int64_t pp) {
    const int64_t logical =
        LogicalRankOf(grid, {.tp = tp, .cp = cp, .dp = dp, .pp = pp});
    return cluster.node_of_rank[PhysicalRankOf(plan, logical)];
  };
  // A ring over the group's nodes in the order in which it reaches them.
  auto add_ring = [&](const std::vector<int32_t>& group) {
    std::vector<int32_t> nodes;
    std::set<int32_t> seen;
    for (const int32_t node : group) {
      if (seen.insert(node).second) {
        nodes.push_back(node);
      } else {
        links.emplace(node, node);
      }
    }
    for (size_t i = 0; nodes.size() > 1 && i < nodes.size(); ++i) {
      links.emplace(nodes[i], nodes[(i + 1) % nodes.size()]);
    }
  };
  for (int64_t pp = 0; pp < grid.pp(); ++pp) {
    for (int64_t tp = 0; tp < grid.tp(); ++tp) {
      std::vector<int32_t> reduction;
      for (int64_t dp = 0; dp < grid.dp(); ++dp) {
        std::vector<int32_t> context;
        for (int64_t cp = 0; cp < grid.cp(); ++cp) {
          const int32_t node = node_of(tp, cp, dp, pp);
          context.push_back(node);
          const int32_t above = node_of(tp, cp, dp, (pp + 1) % grid.pp());
          links.emplace(node, above);
          links.emplace(above, node);
          if (tp > 0) add_ring({node_of(tp - 1, cp, dp, pp), node});
        }
        add_ring(context);
        reduction.insert(reduction.end(), context.begin(), context.end());
      }
      add_ring(reduction);
    }
  }
  return links;
}

}  // namespace

absl::StatusOr<std::vector<LinkSensitivity>> Sensitivities(
    const PlannerInput& input, const Plan& plan) {
  ASSIGN_OR_RETURN(const ClusterModel cluster, ResolveCluster(input.cluster));
  ASSIGN_OR_RETURN(const Estimate base,
                   EstimatePlan(input.model, cluster, plan, input.traits));
  std::vector<LinkSensitivity> result;
  auto probe = [&](int32_t from, int32_t to,
                   const ClusterModel& slower) -> absl::Status {
    ASSIGN_OR_RETURN(const Estimate estimate,
                     EstimatePlan(input.model, slower, plan, input.traits));
    const double growth = estimate.step_s / base.step_s - 1;
    if (growth > 1e-9) result.push_back({from, to, growth});
    return absl::OkStatus();
  };
  for (const auto& [from, to] : UsedLinks(cluster, plan)) {
    ClusterModel slower = cluster;
    ClusterLink& link =
        from == to
            ? slower.nodes[from].link
            : slower
                  .node_links[static_cast<size_t>(from) * slower.nodes.size() +
                              to];
    link.bytes_per_s /= 2;
    link.shared_bytes_per_s /= 2;
    RETURN_IF_ERROR(probe(from, to, slower));
  }
  for (int32_t node = 0; node < cluster.num_nodes(); ++node) {
    if (std::isinf(cluster.nodes[node].card_bytes_per_s)) continue;
    ClusterModel slower = cluster;
    slower.nodes[node].card_bytes_per_s /= 2;
    RETURN_IF_ERROR(probe(node, LinkSensitivity::kAllNodes, slower));
  }
  std::stable_sort(result.begin(), result.end(),
                   [](const LinkSensitivity& a, const LinkSensitivity& b) {
                     return a.growth > b.growth;
                   });
  return result;
}

}  // namespace trireme
