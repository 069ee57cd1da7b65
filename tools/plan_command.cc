// trireme plan: the fastest plan for a job on a cluster, and why not another.

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "fmt/format.h"
#include "models/data/dataset.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "scheduler/plan.h"
#include "scheduler/planner/charts.h"
#include "scheduler/planner/measured_times.h"
#include "scheduler/planner/report.h"
#include "scheduler/planner/search.h"
#include "scheduler/planner/sensitivities.h"
#include "scheduler/planner/skip_route.h"
#include "scheduler/planner/what_if.h"
#include "scheduler/planner/why.h"
#include "scheduler/simulator.h"
#include "scheduler/trace.h"
#include "tools/commands.h"
#include "trainer/batches.h"
#include "trainer/config/textproto.h"
#include "trainer/dry_memory.h"
#include "trainer/job.h"
#include "trainer/job_file.h"
#include "trainer/model_shape_of.h"

namespace trireme {
namespace {

constexpr char kName[] = "plan";

// "tp=4,pp=2,schedule=ZB_V".
absl::StatusOr<WhyQuery> ParseWhy(const std::string& text) {
  WhyQuery query;
  for (const auto view : absl::StrSplit(text, ',')) {
    const std::vector<std::string> parts = absl::StrSplit(view, '=');
    const std::string& name = parts[0];
    const std::string value = parts.size() == 2 ? parts[1] : "";
    int32_t number = 0;
    const bool is_number = absl::SimpleAtoi(value, &number) && number > 0;
    bool flag = false;
    const bool is_flag = absl::SimpleAtob(value, &flag);
    const std::map<std::string, std::optional<int32_t>*> numbers = {
        {"tp", &query.tp},
        {"cp", &query.cp},
        {"ulysses", &query.ulysses},
        {"pp", &query.pp},
        {"dp", &query.dp},
        {"ep", &query.ep},
        {"chunks", &query.chunks},
        {"microbatch_size", &query.microbatch_size}};
    const auto field = numbers.find(name);
    Plan::Schedule schedule;
    Plan::Sharding sharding;
    Plan::Recompute recompute;
    if (field != numbers.end() && is_number) {
      *field->second = number;
    } else if (name == "sequence_parallel" && is_flag) {
      query.sequence_parallel = flag;
    } else if (name == "offload" && is_flag) {
      query.offload = flag;
    } else if (name == "schedule" && Plan::Schedule_Parse(value, &schedule)) {
      query.schedule = schedule;
    } else if (name == "sharding" && Plan::Sharding_Parse(value, &sharding)) {
      query.sharding = sharding;
    } else if (name == "recompute" &&
               Plan::Recompute_Parse(value, &recompute)) {
      query.recompute = recompute;
    } else {
      return InvalidArgument(
          "--why: found '{}', expected FIELD=VALUE with tp, cp, ulysses, pp, "
          "dp, ep, chunks, microbatch_size, sequence_parallel, offload, "
          "schedule, sharding or recompute, separated by commas",
          std::string(view));
    }
  }
  return query;
}

absl::StatusOr<PlannerInput> InputOf(const ParsedCommand& arguments) {
  if (!arguments.Has("cluster")) {
    return InvalidArgument(
        "expected --cluster FILE (`trireme cluster describe` writes one)");
  }
  PlannerInput input;
  // No field of a job has parentheses in its path.
  std::vector<std::string> overrides = arguments.All("set");
  const auto first_edit = std::stable_partition(
      overrides.begin(), overrides.end(), [](const std::string& assignment) {
        return !assignment.starts_with("link(") &&
               !assignment.starts_with("node(");
      });
  std::vector<std::string> edits = arguments.All("what_if");
  edits.insert(edits.end(), first_edit, overrides.end());
  overrides.erase(first_edit, overrides.end());
  ASSIGN_OR_RETURN(JobFile job,
                   LoadJobFile(arguments.positionals()[0], overrides, {}));
  ASSIGN_OR_RETURN(const auto dataset, OpenDataset(job.job.data()));
  const auto setup =
      ResolveJob(job.job, {dataset->size(), dataset->num_classes()});
  RETURN_IF_ERROR(job.locations.Locate(setup.status()));
  input.model = ModelShapeOf(*setup);
  MeasureMemoryOf(*setup, input.model);
  input.global_batch = setup->global_batch;
  RETURN_IF_ERROR(
      ParseTextProtoFile(arguments.Get("cluster"), &input.cluster).status());
  for (const std::string& edit : edits) {
    RETURN_IF_ERROR(ApplyWhatIf(edit, input.cluster));
  }
  ASSIGN_OR_RETURN(const ClusterModel cluster, ResolveCluster(input.cluster));
  UseMeasuredTimes(cluster, input.model);
  ASSIGN_OR_RETURN(const int64_t best, arguments.GetInt("best"));
  if (best < 1 || best > 100) {
    return InvalidArgument("--best: found {}, expected 1 to 100", best);
  }
  input.options.best = static_cast<int32_t>(best);
  const std::map<std::string, OffloadSearch> offload = {
      {"needed", OffloadSearch::kWhereNothingFits},
      {"never", OffloadSearch::kNever},
      {"too", OffloadSearch::kToo},
      {"only", OffloadSearch::kOnly}};
  const auto choice = offload.find(arguments.Get("offload"));
  if (choice == offload.end()) {
    return InvalidArgument(
        "--offload: found '{}', expected needed, never, too or only",
        arguments.Get("offload"));
  }
  input.options.space.offload = choice->second;
  return input;
}

// "3,5".
absl::StatusOr<std::vector<int32_t>> ParseRanks(const std::string& text) {
  std::vector<int32_t> ranks;
  if (text.empty()) return ranks;
  for (const auto view : absl::StrSplit(text, ',')) {
    int32_t rank = 0;
    if (!absl::SimpleAtoi(view, &rank)) {
      return InvalidArgument(
          "--without: found '{}', expected ranks separated by commas",
          std::string(view));
    }
    ranks.push_back(rank);
  }
  return ranks;
}

// How the paths of a routed plan compare, and what its ranks hold.
std::string RouteText(const RoutedPlan& routed, const SkipEstimate& estimate) {
  std::string text = fmt::format(
      "{}\nstep {:.4g} s, of which paths {:.4g} s ({})\n", Summary(routed.plan),
      estimate.step_s, routed.makespan_s,
      routed.proven
          ? std::string("no paths are faster")
          : fmt::format("no paths take less than {:.4g} s: a gap of at most "
                        "{:.1f} %",
                        routed.lower_bound_s,
                        100 * (routed.makespan_s / routed.lower_bound_s - 1)));
  const auto fullest = std::max_element(
      estimate.peak.begin(), estimate.peak.end(),
      [](const auto& a, const auto& b) { return a.total() < b.total(); });
  text += fmt::format("memory of the fullest rank, {}: {}\n",
                      fullest - estimate.peak.begin(), ToText(*fullest));
  return text;
}

// The paths of a given partial pipeline for the cluster, beside the ordinary
// pipeline on the same ranks where it has as many for every stage.
absl::Status RouteAndPrint(const ParsedCommand& arguments,
                           const PlannerInput& input) {
  ASSIGN_OR_RETURN(const PlanFile file, LoadPlanFile(arguments.Get("route")));
  if (!file.plan.has_skip()) {
    return file.locations.Locate(InvalidArgument(
        "plan.skip: found none, expected one: --route finds its paths"));
  }
  ASSIGN_OR_RETURN(const ClusterModel cluster, ResolveCluster(input.cluster));
  const PlanContext context = {.world_size = cluster.num_ranks(),
                               .global_batch = input.global_batch,
                               .mlp_hidden = input.model.mlp_hidden,
                               .num_blocks = input.model.layers,
                               .heads = input.model.heads};
  const auto plan = ResolvePlan(file.plan, context);
  RETURN_IF_ERROR(file.locations.Locate(plan.status()));
  ASSIGN_OR_RETURN(const std::vector<int32_t> without,
                   ParseRanks(arguments.Get("without")));
  ASSIGN_OR_RETURN(RoutedPlan routed, RouteSkips(input.model, cluster, *plan,
                                                 SkipSearchOptions(), without));
  ASSIGN_OR_RETURN(const SkipEstimate estimate,
                   EstimateSkipPlan(input.model, cluster, routed.plan));
  RETURN_IF_ERROR(CheckSkipMemory(estimate));
  fmt::print("{}", RouteText(routed, estimate));
  if (plan->skip().stage_ranks().empty()) {
    Plan whole = *plan;
    whole.clear_skip();
    ASSIGN_OR_RETURN(const Estimate ordinary,
                     EstimatePlan(input.model, cluster, whole));
    fmt::print("the whole pipeline, {}, takes {:.4g} s\n",
               Plan::Schedule_Name(whole.schedule()), ordinary.step_s);
  }
  *routed.plan.mutable_predicted() = PredictionOf(estimate);
  RETURN_IF_ERROR(WriteTextProtoFile(routed.plan, arguments.Get("out")));
  fmt::print("plan: {}\n", arguments.Get("out"));
  return absl::OkStatus();
}

absl::Status MakeAndPrint(const ParsedCommand& arguments) {
  ASSIGN_OR_RETURN(const PlannerInput input, InputOf(arguments));
  if (arguments.Has("route")) return RouteAndPrint(arguments, input);
  if (arguments.Has("without")) {
    return InvalidArgument(
        "--without: found no --route, expected one: it keeps the paths of a "
        "partial pipeline from ranks");
  }
  ASSIGN_OR_RETURN(const PlanReport report, MakePlan(input));
  const RankedPlan& chosen = report.best.front();
  fmt::print("compute: {}\n\n",
             input.model.measured.empty()
                 ? "by FLOPs and rates (`trireme profile --job` measures it)"
                 : "as measured for this job");
  fmt::print("{}\n{}{}\n{}", PlanTable(report), MemoryTable(chosen),
             OffloadText(input, chosen), VerdictSummary(input, report));
  if (arguments.Has("why")) {
    ASSIGN_OR_RETURN(const WhyQuery query, ParseWhy(arguments.Get("why")));
    ASSIGN_OR_RETURN(const std::string answer, Why(input, report, query));
    fmt::print("\n{}\n", answer);
  }
  if (arguments.Has("verdicts")) {
    RETURN_IF_ERROR(WriteFileAtomically(arguments.Get("verdicts"),
                                        VerdictsCsv(report.candidates)));
  }
  if (arguments.Has("sensitivity")) {
    ASSIGN_OR_RETURN(const std::vector<LinkSensitivity> links,
                     Sensitivities(input, chosen.plan));
    fmt::print("\n{}", SensitivityTable(input, links));
  }
  const std::string out = arguments.Get("out");
  RETURN_IF_ERROR(WriteTextProtoFile(chosen.plan, out));
  fmt::print("plan: {}\n", out);
  if (arguments.Has("trace")) {
    RETURN_IF_ERROR(WriteChromeTraceFile(
        SimulationTrace(chosen.estimate.program, chosen.estimate.simulation),
        arguments.Get("trace")));
  }
  if (arguments.Has("charts")) {
    const std::string prefix = arguments.Get("charts");
    const std::string title = Summary(chosen.plan);
    RETURN_IF_ERROR(
        WriteFileAtomically(prefix + "timeline.svg",
                            TimelineSvg(chosen.estimate.program,
                                        chosen.estimate.simulation, title)));
    RETURN_IF_ERROR(WriteFileAtomically(
        prefix + "memory.svg",
        MemorySvg(chosen.estimate.peak, chosen.estimate.limit, title)));
  }
  return absl::OkStatus();
}

int Run(const ParsedCommand& arguments, int, char**) {
  const absl::Status status = MakeAndPrint(arguments);
  return status.ok() ? 0 : Fail(kName, status);
}

}  // namespace

Command PlanCommand() {
  return {
      {.name = kName,
       .summary = "finds the fastest plan for a job on a cluster",
       .positionals = {{.name = "JOB", .help = "job file"}},
       .options = {{.name = "cluster",
                    .value = "FILE",
                    .help = "the hardware (`trireme cluster describe`)"},
                   {.name = "out",
                    .value = "FILE",
                    .default_value = "plan.textproto",
                    .help = "the plan, for `trireme launch --plan`"},
                   {.name = "best",
                    .value = "K",
                    .default_value = "5",
                    .help = "plans in the table"},
                   {.name = "why",
                    .value = "FIELD=VALUE,..",
                    .help = "why not such a plan, as tp=4,pp=2"},
                   {.name = "offload",
                    .value = "WHEN",
                    .default_value = "needed",
                    .help = "plans whose blocks stream in from the host: only "
                            "where nothing else fits (needed), never, beside "
                            "the others (too), or nothing else (only)"},
                   {.name = "verdicts",
                    .value = "FILE",
                    .help = "writes every plan considered and its verdict as "
                            "CSV"},
                   {.name = "what_if",
                    .value = "FIELD=VALUE",
                    .help = "changes the cluster first, as "
                            "link(2,3).bandwidth/=10 or node(0).slowdown=1.5",
                    .repeated = true},
                   {.name = "set",
                    .value = "FIELD=VALUE",
                    .help = "overrides a field of the job, or of the cluster "
                            "as --what_if",
                    .repeated = true},
                   {.name = "route",
                    .value = "FILE",
                    .help = "instead of a search: the fastest paths for this "
                            "plan's partial pipeline (its `skip`)"},
                   {.name = "without",
                    .value = "RANK,..",
                    .help = "with --route: no path visits these logical ranks "
                            "(none of the first stage)"},
                   {.name = "sensitivity",
                    .help = "how much each link matters to the chosen plan"},
                   {.name = "trace",
                    .value = "FILE",
                    .help = "Chrome trace of the predicted step"},
                   {.name = "charts",
                    .value = "PREFIX",
                    .help = "writes PREFIXtimeline.svg and PREFIXmemory.svg"}},
       .example = "trireme plan examples/fashion_mnist.textproto --cluster "
                  "cluster.textproto --why tp=4"},
      Run};
}

}  // namespace trireme
