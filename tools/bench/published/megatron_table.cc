#include "tools/bench/published/megatron_table.h"

#include <algorithm>
#include <cmath>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/costs/estimate.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.h"
#include "tools/bench/published/closed_forms.h"
#include "tools/bench/published/gpt.h"

namespace trireme {
namespace {

constexpr int64_t kTokens = 2048;
constexpr int64_t kVocabulary = 51200;
constexpr uint64_t kTorchBucketBytes = uint64_t{25} << 20;
constexpr uint64_t kAllAtOnce = uint64_t{1} << 40;

// 96·B·s·l·h²·(1 + s/6h + V/16lh), as the paper counts.
double PublishedFlops(const MegatronRun& run) {
  const auto l = static_cast<double>(run.layers);
  const auto h = static_cast<double>(run.hidden);
  const auto s = static_cast<double>(kTokens);
  return 96 * static_cast<double>(run.global_batch) * s * l * h * h *
         (1 + s / (6 * h) + static_cast<double>(kVocabulary) / (16 * l * h));
}

absl::StatusOr<Plan> PlanOf(const MegatronRun& run) {
  Plan plan;
  plan.set_reduce_order(Plan::FAST);
  Plan::Grid& grid = *plan.mutable_grid();
  grid.set_tp(run.tp);
  grid.set_pp(run.pp);
  grid.set_dp(run.gpus / (run.tp * run.pp));
  plan.set_microbatch_size(run.microbatch);
  plan.set_recompute(Plan::FULL);
  plan.set_gradient_bucket_bytes(run.reduces_in_buckets ? kTorchBucketBytes
                                                        : kAllAtOnce);
  if (run.layers_per_chunk > 0) {
    plan.set_schedule(Plan::INTERLEAVED);
    plan.set_chunks_per_rank(run.layers / run.pp / run.layers_per_chunk);
  }
  return ResolvePlan(plan, {.world_size = run.gpus,
                            .global_batch = run.global_batch,
                            .num_blocks = run.layers,
                            .heads = run.heads});
}

bool Possible(const Efficiencies& constants) {
  for (const double value :
       {constants.gemm, constants.link, constants.network}) {
    if (value < 0.1 || value > 1) return false;
  }
  return true;
}

absl::StatusOr<double> CalibrationError(double MegatronPrediction::*estimator,
                                        const Efficiencies& constants) {
  double sum = 0;
  for (const MegatronRun& run : kMegatronRuns) {
    if (!run.calibration) continue;
    ASSIGN_OR_RETURN(const MegatronPrediction predicted,
                     PredictRun(run, constants));
    sum += std::pow(predicted.*estimator / run.published_tflops - 1, 2);
  }
  return sum;
}

}  // namespace

absl::StatusOr<MegatronPrediction> PredictRun(const MegatronRun& run,
                                              const Efficiencies& constants) {
  ASSIGN_OR_RETURN(const Cluster described,
                   DescribeCluster({.device = "A100",
                                    .nodes = run.gpus / 8,
                                    .network = "hdr",
                                    .gemm_efficiency = constants.gemm,
                                    .link_efficiency = constants.link,
                                    .network_efficiency = constants.network}));
  ASSIGN_OR_RETURN(const ClusterModel cluster, ResolveCluster(described));
  ASSIGN_OR_RETURN(const Plan plan, PlanOf(run));
  const Gpt gpt = {.name = run.name,
                   .layers = run.layers,
                   .hidden = run.hidden,
                   .heads = run.heads,
                   .tokens = kTokens,
                   .vocabulary = kVocabulary,
                   .megatron_2021 = true};
  const ModelShape model = GptShape(gpt, run.pp);
  // All replicas are alike.
  PlanCosts costs = PlanCoster(model, cluster, plan).CostsOf(0);
  ChargeGpt(gpt, cluster, plan, costs);
  ASSIGN_OR_RETURN(
      const Estimate estimate,
      EstimateOfCosts(model, cluster, plan,
                      std::vector<PlanCosts>(plan.grid().dp(), costs)));
  const ClosedFormInput closed_form = ClosedFormOf(plan, costs);
  auto tflops = [&](double step_s) {
    return PublishedFlops(run) / step_s / static_cast<double>(run.gpus) / 1e12;
  };
  return MegatronPrediction{.simulated = tflops(estimate.step_s),
                            .amp = tflops(AmpStepSeconds(closed_form)),
                            .pipette = tflops(PipetteStepSeconds(closed_form))};
}

absl::StatusOr<Efficiencies> CalibrateOnMegatron(
    double MegatronPrediction::*estimator) {
  Efficiencies best;
  ASSIGN_OR_RETURN(double least, CalibrationError(estimator, best));
  for (double step = 0.1; step > 0.002; step /= 2) {
    bool improved = true;
    while (improved) {
      improved = false;
      // All 26 neighbours: the constants make up for one another, which single
      // moves cannot follow.
      const Efficiencies center = best;
      for (int direction = 0; direction < 27; ++direction) {
        const int gemm = direction % 3 - 1;
        const int link = direction / 3 % 3 - 1;
        const int network = direction / 9 - 1;
        const Efficiencies moved = {.gemm = center.gemm + gemm * step,
                                    .link = center.link + link * step,
                                    .network = center.network + network * step};
        if (!Possible(moved)) continue;
        ASSIGN_OR_RETURN(const double error,
                         CalibrationError(estimator, moved));
        if (error < least * (1 - 1e-6)) {
          least = error;
          best = moved;
          improved = true;
        }
      }
    }
  }
  return best;
}

absl::StatusOr<MegatronColumn> MakeMegatronColumn(
    double MegatronPrediction::*estimator) {
  MegatronColumn column;
  ASSIGN_OR_RETURN(column.constants, CalibrateOnMegatron(estimator));
  int count = 0;
  for (const MegatronRun& run : kMegatronRuns) {
    ASSIGN_OR_RETURN(const MegatronPrediction predicted,
                     PredictRun(run, column.constants));
    column.tflops.push_back(predicted.*estimator);
    if (run.calibration) continue;
    ++count;
    column.error += std::abs(column.tflops.back() / run.published_tflops - 1);
  }
  column.error /= count;
  return column;
}

absl::StatusOr<MegatronTable> MakeMegatronTable() {
  MegatronTable table;
  ASSIGN_OR_RETURN(table.simulated,
                   MakeMegatronColumn(&MegatronPrediction::simulated));
  ASSIGN_OR_RETURN(table.amp, MakeMegatronColumn(&MegatronPrediction::amp));
  ASSIGN_OR_RETURN(table.pipette,
                   MakeMegatronColumn(&MegatronPrediction::pipette));
  return table;
}

std::string ToText(const MegatronTable& table) {
  const std::array<std::pair<const char*, const MegatronColumn*>, 3> columns = {
      {{"simulated", &table.simulated},
       {"AMP", &table.amp},
       {"Pipette", &table.pipette}}};
  std::string text = fmt::format(
      "TFLOP/s per GPU; * marks the rows that each estimator is calibrated on."
      "\n\n{:>6} {:>5} {:>10}",
      "model", "GPUs", "published");
  for (const auto& [name, column] : columns) {
    text += fmt::format(" {:>17}", name);
  }
  text += "\n";
  for (size_t i = 0; i < kMegatronRuns.size(); ++i) {
    const MegatronRun& run = kMegatronRuns[i];
    text += fmt::format("{:>6} {:>5} {:>9}{}", run.name, run.gpus,
                        run.published_tflops, run.calibration ? "*" : " ");
    for (const auto& [name, column] : columns) {
      text += fmt::format(
          " {:>17}",
          fmt::format("{:.1f} ({:+.1f} %)", column->tflops[i],
                      100 * (column->tflops[i] / run.published_tflops - 1)));
    }
    text += "\n";
  }
  text +=
      "\nMean absolute error over the other seven rows, and the share of "
      "the data sheet that\nmatrix products, links in a node and links "
      "between nodes are found to reach:\n";
  for (const auto& [name, column] : columns) {
    text += fmt::format("  {:<9} {:>4.1f} %   {:.1f} %, {:.1f} %, {:.1f} %\n",
                        name, 100 * column->error, 100 * column->constants.gemm,
                        100 * column->constants.link,
                        100 * column->constants.network);
  }
  return text;
}

}  // namespace trireme
