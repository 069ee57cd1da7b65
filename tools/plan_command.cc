// trireme plan: the fastest plan for a job on a cluster, and why not another.

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "fmt/format.h"
#include "models/data/dataset.h"
#include "runtime/core/check_range.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "scheduler/cluster/tf32.h"
#include "scheduler/cluster/what_if.h"
#include "scheduler/costs/estimate.h"
#include "scheduler/explain/charts.h"
#include "scheduler/explain/query.h"
#include "scheduler/explain/sensitivities.h"
#include "scheduler/explain/tables.h"
#include "scheduler/explain/verdicts.h"
#include "scheduler/partial/route.h"
#include "scheduler/pieces/measured_times.h"
#include "scheduler/plan/plan.h"
#include "scheduler/search/candidate_plan.h"
#include "scheduler/search/search.h"
#include "scheduler/search/subsets.h"
#include "scheduler/simulator/simulator.h"
#include "scheduler/simulator/trace.h"
#include "tools/commands.h"
#include "trainer/config/written_file.h"
#include "trainer/job/batches.h"
#include "trainer/job/cluster_file.h"
#include "trainer/job/job.h"
#include "trainer/job/job_file.h"
#include "trainer/planning/model_shape_of.h"
#include "trainer/preflight/describe.h"

namespace trireme {
namespace {

constexpr char kName[] = "plan";

// Says how far a search is: on a terminal in one line, else now and then.
class ProgressLine {
 public:
  ~ProgressLine() {
    if (on_terminal_ && shown_) fmt::print(stderr, "\r{:{}}\r", "", kWidth);
  }

  void Show(const SearchProgress& progress) {
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < (on_terminal_ ? std::chrono::milliseconds(200)
                                    : std::chrono::seconds(10))) {
      return;
    }
    last_ = now;
    shown_ = true;
    const std::string text = fmt::format("{}: {} of {}", progress.phase,
                                         progress.done, progress.total);
    if (on_terminal_) {
      fmt::print(stderr, "\r{:{}}", text, kWidth);
      std::fflush(stderr);
    } else {
      fmt::print(stderr, "{}\n", text);
    }
  }

 private:
  static constexpr int kWidth = 60;
  const bool on_terminal_ = isatty(STDERR_FILENO) == 1;
  std::chrono::steady_clock::time_point last_ =
      std::chrono::steady_clock::now();
  bool shown_ = false;
};

// What a plan that was asked for is written to; none: nothing is written, as
// questions are only answered.
std::optional<std::string> PlanPathOf(const ParsedCommand& arguments) {
  const bool asks = arguments.Has("why") || arguments.Has("what_if") ||
                    arguments.Has("sensitivity") || arguments.Has("plan");
  if (asks && !arguments.Has("out")) return std::nullopt;
  return arguments.Get("out");
}

// Before minutes of search: that all that is to be written can be.
absl::Status CheckOutputs(const ParsedCommand& arguments) {
  const std::optional<std::string> out = PlanPathOf(arguments);
  if (out.has_value() && !arguments.Has("overwrite")) {
    RETURN_IF_ERROR(CheckReplaceable(*out, kName));
  }
  std::vector<std::string> others;
  if (arguments.Has("verdicts")) others.push_back(arguments.Get("verdicts"));
  if (arguments.Has("charts")) {
    others.push_back(arguments.Get("charts") + "timeline.svg");
  }
  for (const std::string& path : others) {
    // Destroyed at once, it leaves nothing.
    RETURN_IF_ERROR(AtomicFile::Create(path).status());
  }
  return absl::OkStatus();
}

// Options that only a search has.
absl::Status CheckInstead(const ParsedCommand& arguments,
                          const std::string& instead,
                          const std::vector<std::string>& of_search) {
  if (!arguments.Has(instead)) return absl::OkStatus();
  for (const std::string& option : of_search) {
    if (!arguments.Has(option)) continue;
    return InvalidArgument(
        "--{}: found with --{}, expected without: it is about the search among "
        "plans",
        option, instead);
  }
  return absl::OkStatus();
}

absl::Status CheckQuestions(const ParsedCommand& arguments) {
  if (!arguments.Has("route") && arguments.Has("without")) {
    return InvalidArgument(
        "--without: found no --route, expected one: it keeps the paths of a "
        "partial pipeline from ranks");
  }
  RETURN_IF_ERROR(CheckInstead(
      arguments, "route",
      {"best", "why", "offload", "verdicts", "sensitivity", "charts"}));
  return CheckInstead(arguments, "plan",
                      {"best", "why", "offload", "verdicts", "route"});
}

struct Question {
  TrainingSetup setup;
  PlannerInput input;
};

absl::StatusOr<Question> QuestionOf(const ParsedCommand& arguments) {
  Question question;
  PlannerInput& input = question.input;
  ASSIGN_OR_RETURN(JobFile job, LoadJobFile(arguments.positionals()[0],
                                            arguments.All("set"), {}));
  ASSIGN_OR_RETURN(const auto dataset, OpenDataset(job.job.data()));
  const auto setup =
      ResolveJob(job.job, {dataset->size(), dataset->num_classes()});
  RETURN_IF_ERROR(job.locations.Locate(setup.status()));
  question.setup = *setup;
  ASSIGN_OR_RETURN(const double load, arguments.GetDouble("expert_load"));
  if (!(load >= 1)) {
    return InvalidArgument("--expert_load: found {}, expected at least 1",
                           load);
  }
  input.model = ModelShapeOf(*setup, load);
  input.global_batch = setup->global_batch;
  ASSIGN_OR_RETURN(input.cluster, LoadCluster(arguments.Get("cluster")));
  ASSIGN_OR_RETURN(const std::string changes,
                   ApplyWhatIfs(arguments.All("what_if"), input.cluster));
  fmt::print("{}", changes);
  if (arguments.Has("only")) {
    ASSIGN_OR_RETURN(const DeviceSubset subset,
                     ParseSubset(input.cluster, arguments.Get("only")));
    input.cluster = OnlyDevices(input.cluster, subset);
  }
  if (setup->kernel_libraries.tf32) UseTf32(input.cluster);
  ASSIGN_OR_RETURN(const ClusterModel cluster, ResolveCluster(input.cluster));
  UseMeasuredTimes(cluster, input.model);
  ASSIGN_OR_RETURN(const int64_t best, arguments.GetInt("best"));
  RETURN_IF_ERROR(CheckRange("--best", best, 1, 100));
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
  return question;
}

absl::Status WritePlan(const ParsedCommand& arguments, const Plan& plan) {
  const std::optional<std::string> out = PlanPathOf(arguments);
  if (!out.has_value()) {
    fmt::print("no plan is written, as this was a question (--out FILE)\n");
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(WriteMarkedFile(plan, kName, *out));
  fmt::print("plan: {}\n", *out);
  return absl::OkStatus();
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
  const auto plan = ResolvePlan(
      file.plan, ContextOf(input.model, cluster, input.global_batch));
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
  return WritePlan(arguments, routed.plan);
}

absl::Status WriteCharts(const ParsedCommand& arguments,
                         const RankedPlan& chosen) {
  if (!arguments.Has("charts")) return absl::OkStatus();
  const Estimate& estimate = chosen.estimate;
  const std::string prefix = arguments.Get("charts");
  const std::string title = Summary(chosen.plan);
  RETURN_IF_ERROR(WriteFileAtomically(
      prefix + "timeline.svg",
      TimelineSvg(estimate.program, estimate.simulation, title)));
  RETURN_IF_ERROR(WriteFileAtomically(
      prefix + "memory.svg", MemorySvg(estimate.peak, estimate.limit, title)));
  return WriteChromeTraceFile(
      SimulationTrace(estimate.program, estimate.simulation),
      prefix + "trace.json");
}

absl::Status PrintSensitivity(const ParsedCommand& arguments,
                              const PlannerInput& input, const Plan& plan) {
  if (!arguments.Has("sensitivity")) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::vector<LinkSensitivity> links,
                   Sensitivities(input, plan));
  fmt::print("{}\n", SensitivityTable(input, links));
  return absl::OkStatus();
}

absl::Status PrintReduceOrder(const PlannerInput& input,
                              const RankedPlan& ranked) {
  ASSIGN_OR_RETURN(const std::string text,
                   ReduceOrderText(input, ranked.plan, ranked.estimate.step_s));
  if (!text.empty()) fmt::print("{}\n", text);
  return absl::OkStatus();
}

// What a given plan takes, as training would carry it out.
absl::Status PredictAndPrint(const ParsedCommand& arguments,
                             const Question& question) {
  const PlannerInput& input = question.input;
  ASSIGN_OR_RETURN(const PlanFile file, LoadPlanFile(arguments.Get("plan")));
  if (file.plan.has_skip()) {
    return file.locations.Locate(InvalidArgument(
        "plan.skip: found one, expected none: --route is for partial "
        "pipelines"));
  }
  ASSIGN_OR_RETURN(const ClusterModel cluster, ResolveCluster(input.cluster));
  const auto plan = ResolvePlan(
      file.plan, PlanContextOf(question.setup, cluster.num_ranks()));
  RETURN_IF_ERROR(file.locations.Locate(plan.status()));
  const double bound = plan->experts().max_load();
  ASSIGN_OR_RETURN(const double load, arguments.GetDouble("expert_load"));
  if (bound > 0 && load > bound) {
    return file.locations.Locate(InvalidArgument(
        "plan.experts.max_load: found {}, expected at least --expert_load, {}",
        bound, load));
  }
  RankedPlan given;
  given.plan = *plan;
  given.candidate = CandidateOf(given.plan);
  ASSIGN_OR_RETURN(given.estimate,
                   EstimatePlan(input.model, cluster, given.plan));
  *given.plan.mutable_predicted() = PredictionOf(given.plan, given.estimate);
  PlanReport report;
  report.best.push_back(given);
  fmt::print("{}\n{}{}\n", PlanTable(report), MemoryTable(given),
             OffloadText(input, given));
  if (!Fits(given.estimate)) fmt::print("It does not fit the memory.\n");
  fmt::print("{}", DescribeMicrobatchLosses(question.setup, given.plan));
  RETURN_IF_ERROR(PrintReduceOrder(input, given));
  RETURN_IF_ERROR(PrintSensitivity(arguments, input, given.plan));
  RETURN_IF_ERROR(WriteCharts(arguments, given));
  return WritePlan(arguments, given.plan);
}

absl::Status MakeAndPrint(const ParsedCommand& arguments) {
  RETURN_IF_ERROR(CheckQuestions(arguments));
  RETURN_IF_ERROR(CheckOutputs(arguments));
  std::optional<WhyQuery> query;
  if (arguments.Has("why")) {
    ASSIGN_OR_RETURN(query, ParseWhyQuery(arguments.Get("why")));
  }
  ASSIGN_OR_RETURN(Question question, QuestionOf(arguments));
  PlannerInput& input = question.input;
  if (arguments.Has("route")) return RouteAndPrint(arguments, input);
  if (arguments.Has("plan")) return PredictAndPrint(arguments, question);
  std::optional<ProgressLine> progress(std::in_place);
  input.options.progress = [&](const SearchProgress& now) {
    progress->Show(now);
  };
  const absl::StatusOr<PlanReport> report = MakePlan(input);
  progress.reset();
  input.options.progress = nullptr;
  RETURN_IF_ERROR(report.status());
  const RankedPlan& chosen = report->best.front();
  fmt::print("compute: {}\n\n",
             input.model.measured.empty()
                 ? "by FLOPs and rates (`trireme profile --job` measures it)"
                 : "as measured for this job");
  fmt::print("{}\n{}{}\n{}\n", PlanTable(*report), MemoryTable(chosen),
             OffloadText(input, chosen), VerdictSummary(input, *report));
  fmt::print("{}", DescribeMicrobatchLosses(question.setup, chosen.plan));
  RETURN_IF_ERROR(PrintReduceOrder(input, chosen));
  if (query.has_value()) {
    ASSIGN_OR_RETURN(const std::string answer, Why(input, *report, *query));
    fmt::print("{}\n", answer);
  }
  if (arguments.Has("verdicts")) {
    RETURN_IF_ERROR(
        WriteFileAtomically(arguments.Get("verdicts"), VerdictsCsv(*report)));
  }
  RETURN_IF_ERROR(PrintSensitivity(arguments, input, chosen.plan));
  ASSIGN_OR_RETURN(const SubsetReport subsets,
                   FasterSubsets(input, chosen.estimate.step_s));
  fmt::print("{}", SubsetText(input, subsets, chosen.estimate.step_s));
  RETURN_IF_ERROR(WriteCharts(arguments, chosen));
  return WritePlan(arguments, chosen.plan);
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
                    .default_value = "cluster.textproto",
                    .help = "the hardware (`trireme profile` measures it, "
                            "`trireme cluster describe` knows some)"},
                   {.name = "out",
                    .value = "FILE",
                    .default_value = "plan.textproto",
                    .help = "the plan, for `trireme launch --plan`; questions "
                            "(--why, --what_if, --sensitivity) write one only "
                            "where this is given"},
                   {.name = "overwrite",
                    .help = "replaces what --out names, whoever wrote it"},
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
                   {.name = "expert_load",
                    .value = "LOAD",
                    .default_value = "1",
                    .help = "rows of the rank whose experts have most, over "
                            "those of even routing"},
                   {.name = "what_if",
                    .value = "FIELD=VALUE",
                    .help = "changes the cluster first, as "
                            "link(2,3).bandwidth/=10 or node(0).slowdown=1.5",
                    .repeated = true},
                   {.name = "only",
                    .value = "NODE,..",
                    .help = "plans for these nodes of the cluster, as a,b:4 "
                            "(all devices of a and four of b)"},
                   {.name = "set",
                    .value = "FIELD=VALUE",
                    .help = "overrides a field of the job",
                    .repeated = true},
                   {.name = "plan",
                    .value = "FILE",
                    .help = "instead of a search: what this plan takes; --out "
                            "writes it with its prediction"},
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
                   {.name = "charts",
                    .value = "PREFIX",
                    .help = "the predicted step: PREFIXtimeline.svg, "
                            "PREFIXmemory.svg and PREFIXtrace.json, a Chrome "
                            "trace"}},
       .example = "trireme plan examples/fashion_mnist.textproto --cluster "
                  "cluster.textproto --why tp=4"},
      Run};
}

}  // namespace trireme
