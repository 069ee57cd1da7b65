// trireme inspect: what a file or folder holds.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "fmt/format.h"
#include "models/image/encode.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/core/median.h"
#include "runtime/core/status.h"
#include "runtime/telemetry/metrics_log.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.h"
#include "scheduler/program/compile.h"
#include "tools/commands.h"
#include "trainer/config/textproto.h"
#include "trainer/job/cluster_file.h"
#include "trainer/job/job_file.h"
#include "trainer/report/plot_loss.h"
#include "trainer/run/is_run.h"
#include "trainer/run/run_folder.h"
#include "trainer/train.h"

namespace trireme {
namespace {

constexpr char kName[] = "inspect";

// A file's text, which could write anything to a terminal.
std::string Printable(const std::string& text) {
  return absl::Utf8SafeCEscape(text);
}

absl::Status InspectSafetensors(const std::string& path) {
  ASSIGN_OR_RETURN(const auto file, SafetensorsFile::Open(path));
  int64_t bytes = 0, elements = 0;
  for (const auto& [name, entry] : file->tensors()) {
    fmt::print("{:<44} {:<5} {:<20} {:>12}\n", Printable(name),
               DTypeName(entry.dtype), entry.shape.ToString(),
               BytesText(entry.bytes));
    bytes += entry.bytes;
    elements += entry.shape.num_elements();
  }
  fmt::print("{} tensors, {} elements, {}\n", file->tensors().size(), elements,
             BytesText(bytes));
  for (const auto& [key, value] : file->metadata()) {
    fmt::print("{}: {}\n", Printable(key), Printable(value));
  }
  return absl::OkStatus();
}

absl::Status InspectCheckpoint(const std::string& path) {
  ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(path));
  fmt::print("checkpoint of step {}, {} samples consumed\n", manifest.step,
             manifest.consumed_samples);
  for (const auto& [name, file] : manifest.files) {
    fmt::print("  {:<24} {:>12}  xxh64 {}\n", name, BytesText(file.bytes),
               file.xxh64);
  }
  RETURN_IF_ERROR(VerifyChecksums(path));
  fmt::print("all checksums agree\n");
  return absl::OkStatus();
}

double NumberOr(const nlohmann::json& object, const std::string& key,
                double otherwise) {
  return object.contains(key) && object[key].is_number()
             ? object[key].get<double>()
             : otherwise;
}

// Where the steps' time went, and the share of the peak. The first step warms
// up and is left out where there are others.
void PrintSpeed(const std::vector<nlohmann::json>& entries,
                std::optional<int64_t> ranks,
                std::optional<double> peak_flops) {
  using Value = std::function<double(const nlohmann::json&)>;
  const auto values = [&](const Value& value) {
    std::vector<double> values;
    for (size_t i = entries.size() > 1 ? 1 : 0; i < entries.size(); ++i) {
      values.push_back(value(entries[i]));
    }
    return values;
  };
  // Medians of the causes would not add up to the step's.
  const auto mean = [&](const Value& value) {
    const std::vector<double> all = values(value);
    return std::accumulate(all.begin(), all.end(), 0.0) /
           static_cast<double>(all.size());
  };
  const Value step_s = [](const auto& entry) {
    return NumberOr(entry, "step_s", 0);
  };
  const double flops = Median(values([](const auto& entry) {
    return NumberOr(entry, "model_flops_per_s", 0);
  }));
  fmt::print("median step {:.4g} s, {:.4g} model FLOP/s\n",
             Median(values(step_s)), flops);
  const double step = mean(step_s);
  if (entries.back().contains("exposed_s") && step > 0) {
    fmt::print("of the mean step, {:.4g} s:\n", step);
    const auto print = [&](const std::string& cause, double seconds) {
      fmt::print("  {:<10} {:>9.4f} s {:>5.1f} %\n", cause, seconds,
                 100 * seconds / step);
    };
    print("compute", mean([](const auto& entry) {
            return NumberOr(entry, "compute_s", 0);
          }));
    for (const auto& [cause, unused] : entries.back()["exposed_s"].items()) {
      print(cause, mean([&, name = cause](const auto& entry) {
              return entry.contains("exposed_s")
                         ? NumberOr(entry["exposed_s"], name, 0)
                         : 0;
            }));
    }
  }
  if (peak_flops.has_value() && ranks.has_value()) {
    fmt::print(
        "MFU {:.1f} % = model FLOP/s / (ranks x peak) = {:.4g} / ({} x "
        "{:.4g}); model FLOPs: {}\n",
        100 * flops / (static_cast<double>(*ranks) * *peak_flops), flops,
        *ranks, *peak_flops, kModelFlopsMeaning);
  } else {
    fmt::print(
        "MFU = model FLOP/s / (ranks x peak FLOP/s of one rank's device: "
        "--peak_flops); model FLOPs: {}\n",
        kModelFlopsMeaning);
  }
}

absl::Status InspectMetrics(const std::string& path,
                            std::optional<int64_t> ranks,
                            std::optional<double> peak_flops) {
  ASSIGN_OR_RETURN(
      const auto entries,
      ReadMetrics(path, {"loss", "grad_norm", "samples_per_s", "step_s",
                         "model_flops_per_s", "compute_s", "exposed_s"}));
  if (entries.empty()) return NotFound("{} has no step yet", path);
  const auto print = [](const nlohmann::json& entry) {
    const double missing = std::numeric_limits<double>::quiet_NaN();
    fmt::print("step {:>8}  loss {:.4f}  grad norm {:.3f}  {:.1f} samples/s\n",
               entry["step"].get<int64_t>(), NumberOr(entry, "loss", missing),
               NumberOr(entry, "grad_norm", missing),
               NumberOr(entry, "samples_per_s", missing));
  };
  const size_t shown = 10;
  const size_t stride = std::max<size_t>(1, (entries.size() - 1) / (shown - 1));
  for (size_t i = 0; i + 1 < entries.size(); i += stride) print(entries[i]);
  print(entries.back());
  PrintSpeed(entries, ranks, peak_flops);
  return absl::OkStatus();
}

// The ranks of a run, by its plan.
std::optional<int64_t> RanksOfRun(const RunFolder& run) {
  const absl::StatusOr<PlanFile> file = LoadPlanFile(run.plan());
  if (!file.ok()) return std::nullopt;
  const absl::StatusOr<int64_t> ranks = RanksOf(file->plan);
  if (!ranks.ok()) return std::nullopt;
  return *ranks;
}

// Experts for which a plan could have been written, and their width: those that
// it was tuned for, or else one or more a rank of ep, or one that all share
// where rows go to some of an expert's ranks, as many as any divisor of ep.
std::pair<int64_t, int64_t> SmallestExperts(const Plan& plan) {
  const int64_t ep = plan.grid().ep();
  if (ep < 2) return {0, 0};
  const Plan::Experts& experts = plan.experts();
  const auto& tuned = experts.tuned_for();
  if (tuned.experts() > 0) return {tuned.experts(), tuned.expert_hidden()};
  const bool shared =
      experts.row_copies() > 1 ||
      std::any_of(experts.choices().begin(), experts.choices().end(),
                  [](const auto& way) { return way.row_copies() > 1; });
  if (shared) return {1, ep};
  // Larger numbers are refused all the same, without overflow.
  return {ep * std::clamp<int64_t>(experts.shadowed(), 1, 1 << 20), ep};
}

// A job for which a plan could have been written: as many blocks and samples
// as it says, or else enough.
PlanContext SmallestContext(const Plan& plan, int64_t ranks) {
  // Fields that are left out read as 0.
  const auto& stage_ranks = plan.skip().stage_ranks();
  const int64_t pp =
      std::max<int64_t>({plan.grid().pp(), stage_ranks.size(), 1});
  const int64_t dp = std::max<int64_t>(
      {plan.grid().dp(), stage_ranks.empty() ? 1 : stage_ranks[0], 1});
  int64_t blocks = 0;
  for (const Plan::Stage& stage : plan.stages()) blocks += stage.blocks();
  if (blocks == 0) {
    blocks = 2 * pp * std::max<int64_t>(plan.chunks_per_rank(), 2);
  }
  // Larger ones are refused all the same, without overflow.
  constexpr int64_t kMost = 1 << 20;
  const int64_t microbatches =
      plan.has_microbatches()
          ? plan.microbatches()
          : 4 * std::max<int64_t>(pp, plan.microbatch_group());
  const int64_t size = std::max<int64_t>(plan.microbatch_size(), 1);
  const auto [experts, expert_hidden] = SmallestExperts(plan);
  return {.world_size = ranks,
          .global_batch =
              dp * std::min(microbatches, kMost) * std::min(size, kMost),
          .num_blocks = blocks,
          .experts = experts,
          .expert_hidden = expert_hidden};
}

absl::Status InspectPlan(const std::string& path) {
  ASSIGN_OR_RETURN(const PlanFile file, LoadPlanFile(path));
  const auto ranks = RanksOf(file.plan);
  RETURN_IF_ERROR(file.locations.Locate(ranks.status()));
  const auto resolved =
      ResolvePlan(file.plan, SmallestContext(file.plan, *ranks));
  RETURN_IF_ERROR(file.locations.Locate(resolved.status()));
  const bool has_stages = file.plan.stages_size() > 0;
  const bool has_batch =
      file.plan.has_microbatches() && file.plan.has_microbatch_size();
  if (!has_stages || !has_batch) {
    // What the job decides is not shown.
    Plan shown = *resolved;
    if (!has_stages) shown.clear_stages();
    if (!file.plan.has_microbatches()) shown.clear_microbatches();
    if (!file.plan.has_microbatch_size()) shown.clear_microbatch_size();
    if (file.plan.has_skip()) *shown.mutable_skip() = file.plan.skip();
    fmt::print(
        "{}# {} ranks. The job decides what is left out of {}. For a job:\n"
        "#   trireme train JOB --plan {} --dry_run --ranks {}\n",
        PrintTextProto(shown), *ranks,
        has_stages  ? "microbatches"
        : has_batch ? "stages"
                    : "stages and microbatches",
        path, *ranks);
    return absl::OkStatus();
  }
  fmt::print("{}{}\n", PrintTextProto(*resolved), Summary(*resolved));
  // The paths and orders above are a partial pipeline's program.
  if (resolved->has_skip()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Program program, CompilePlan(*resolved));
  fmt::print("{}", ToText(program));
  return absl::OkStatus();
}

absl::Status InspectJob(const std::string& path) {
  ASSIGN_OR_RETURN(JobFile file, LoadJobFile(path, {}, {}));
  TrainOptions options;
  options.job = file.job;
  const auto run = DescribeRun(options, 1);
  RETURN_IF_ERROR(file.locations.Locate(run.status()));
  fmt::print("{}", run->text);
  return absl::OkStatus();
}

absl::Status InspectCluster(const std::string& path) {
  ASSIGN_OR_RETURN(const Cluster cluster, LoadCluster(path));
  int64_t devices = 0;
  for (const Cluster::Node& node : cluster.nodes()) devices += node.count();
  fmt::print("{}# a cluster of {} nodes, {} devices\n", PrintTextProto(cluster),
             cluster.nodes_size(), devices);
  return absl::OkStatus();
}

// Of a file that may be meant as any of three the one that it is; of one that
// is none, what is wrong with it as the one that it is most like. A plan of one
// field has as many mistakes as a job has of it; no job has so few.
absl::Status InspectText(const std::string& path) {
  const std::vector<
      std::pair<absl::Status, absl::Status (*)(const std::string&)>>
      kinds = {{LoadPlanFile(path).status(), InspectPlan},
               {LoadJobFile(path, {}, {}).status(), InspectJob},
               {LoadCluster(path).status(), InspectCluster}};
  const auto mistakes = [](const absl::Status& status) {
    return std::count(status.message().begin(), status.message().end(), '\n');
  };
  absl::Status nearest = kinds[0].first;
  for (const auto& [status, inspect] : kinds) {
    if (status.ok()) return inspect(path);
    if (mistakes(status) < mistakes(nearest)) nearest = status;
  }
  return nearest;
}

absl::Status Inspect(const std::string& path,
                     std::optional<double> peak_flops) {
  namespace fs = std::filesystem;
  std::error_code error;
  const auto ends_with = [&](std::string_view suffix) {
    return path.size() >= suffix.size() &&
           path.compare(path.size() - suffix.size(), suffix.size(), suffix) ==
               0;
  };
  if (!fs::exists(path, error)) return NotFound("no such file: {}", path);
  if (fs::is_directory(path, error)) {
    if (fs::exists(path + "/manifest.json", error)) {
      return InspectCheckpoint(path);
    }
    const RunFolder run(path);
    if (!fs::exists(run.metrics(), error)) {
      return InvalidArgument(
          "{}: found neither a run's metrics.jsonl nor a checkpoint's "
          "manifest.json",
          path);
    }
    RETURN_IF_ERROR(InspectMetrics(run.metrics(), RanksOfRun(run), peak_flops));
    const auto latest = LatestCheckpoint(run.checkpoints());
    if (latest.ok()) return InspectCheckpoint(*latest);
    return absl::OkStatus();
  }
  if (ends_with(".safetensors")) return InspectSafetensors(path);
  if (ends_with("manifest.json")) {
    return InspectCheckpoint(fs::path(path).parent_path());
  }
  if (ends_with("metrics.jsonl")) {
    return InspectMetrics(path, std::nullopt, peak_flops);
  }
  if (ends_with("plan.textproto")) return InspectPlan(path);
  if (ends_with(".textproto") || ends_with(".json")) return InspectText(path);
  return InvalidArgument(
      "{}: expected a job, plan or cluster (.textproto, .json), .safetensors, "
      "metrics.jsonl, or the folder of a run or checkpoint",
      path);
}

int Run(const ParsedCommand& arguments, int, char**) {
  const std::string& path = arguments.positionals()[0];
  std::optional<double> peak_flops;
  if (arguments.Has("peak_flops")) {
    double value = 0;
    if (!absl::SimpleAtod(arguments.Get("peak_flops"), &value) ||
        !(value > 0) || !std::isfinite(value)) {
      return Fail(kName, InvalidArgument("--peak_flops: found '{}', expected a "
                                         "positive number, as 312e12",
                                         arguments.Get("peak_flops")));
    }
    peak_flops = value;
  }
  absl::Status status;
  if (arguments.Has("plot")) {
    status = CheckIsRun(path);
    if (!status.ok()) return Fail(kName, status);
    const std::string plot = arguments.Get("plot");
    status = CheckReplaces(plot, arguments.Has("overwrite"));
    if (status.ok()) status = PlotLoss(path, plot);
  } else {
    status = Inspect(path, peak_flops);
  }
  return status.ok() ? 0 : Fail(kName, status);
}

}  // namespace

Command InspectCommand() {
  return {{.name = kName,
           .summary = "shows what a job, plan, cluster, checkpoint, run or "
                      "tensor file holds",
           .positionals = {{.name = "FILE", .help = "file or folder"}},
           .options = {{.name = "plot",
                        .value = "PNG",
                        .help = "draws the loss curve of a run's folder"},
                       {.name = "overwrite",
                        .help = "also where PNG is not this program's"},
                       {.name = "peak_flops",
                        .value = "FLOPS",
                        .help = "one rank's dense peak FLOP/s, for a run's MFU "
                                "(A100 bf16 312e12, H100 989e12)"}},
           .example =
               "trireme inspect runs/fashion-mnist/checkpoints/step_00001200"},
          Run};
}

}  // namespace trireme
