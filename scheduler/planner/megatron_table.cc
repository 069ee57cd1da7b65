#include "scheduler/planner/megatron_table.h"

#include <algorithm>
#include <cmath>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "scheduler/plan.h"
#include "scheduler/planner/cluster.h"
#include "scheduler/planner/estimate.h"
#include "scheduler/planner/model_shape.h"

namespace trireme {
namespace {

constexpr int64_t kTokens = 2048;
constexpr int64_t kVocabulary = 51200;

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
  Plan::Grid& grid = *plan.mutable_grid();
  grid.set_tp(run.tp);
  grid.set_pp(run.pp);
  grid.set_dp(run.gpus / (run.tp * run.pp));
  plan.set_microbatch_size(run.microbatch);
  plan.set_recompute(Plan::FULL);
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

absl::StatusOr<double> CalibrationError(const Efficiencies& constants) {
  double sum = 0;
  for (const MegatronRun& run : kMegatronRuns) {
    if (!run.calibration) continue;
    ASSIGN_OR_RETURN(const MegatronPrediction predicted,
                     PredictRun(run, constants));
    sum += std::pow(predicted.simulated / run.published_tflops - 1, 2);
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
  const ModelShape model = GptShape(run.name, run.layers, run.hidden, run.heads,
                                    kTokens, kVocabulary);
  // As Megatron-LM was then: gradients are reduced after the last backward,
  // messages are scattered over the tensor-parallel ranks and waited for.
  const RuntimeTraits traits = {.overlap_gradients = false,
                                .scatter_messages = true,
                                .blocking_messages = true};
  ASSIGN_OR_RETURN(const Estimate estimate,
                   EstimatePlan(model, cluster, plan, traits));
  auto tflops = [&](double step_s) {
    return PublishedFlops(run) / step_s / static_cast<double>(run.gpus) / 1e12;
  };
  return MegatronPrediction{
      .simulated = tflops(estimate.step_s),
      .amp = tflops(AmpStepSeconds(estimate.closed_form)),
      .pipette = tflops(PipetteStepSeconds(estimate.closed_form))};
}

absl::StatusOr<Efficiencies> CalibrateOnMegatron() {
  Efficiencies best;
  ASSIGN_OR_RETURN(double least, CalibrationError(best));
  for (double step = 0.1; step > 0.002; step /= 2) {
    bool improved = true;
    while (improved) {
      improved = false;
      // All 26 neighbours: the constants make up for one another, which single
      // moves cannot follow.
      const Efficiencies center = best;
      for (int direction = 0; direction < 27; ++direction) {
        const Efficiencies moved = {
            .gemm = center.gemm + (direction % 3 - 1) * step,
            .link = center.link + (direction / 3 % 3 - 1) * step,
            .network = center.network + (direction / 9 - 1) * step};
        if (!Possible(moved)) continue;
        ASSIGN_OR_RETURN(const double error, CalibrationError(moved));
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

absl::StatusOr<MegatronTable> MakeMegatronTable() {
  MegatronTable table;
  ASSIGN_OR_RETURN(table.constants, CalibrateOnMegatron());
  int count = 0;
  for (const MegatronRun& run : kMegatronRuns) {
    ASSIGN_OR_RETURN(const MegatronPrediction row,
                     PredictRun(run, table.constants));
    table.rows.push_back(row);
    if (run.calibration) continue;
    ++count;
    table.simulated_error += std::abs(row.simulated / run.published_tflops - 1);
    table.amp_error += std::abs(row.amp / run.published_tflops - 1);
    table.pipette_error += std::abs(row.pipette / run.published_tflops - 1);
  }
  for (double* error :
       {&table.simulated_error, &table.amp_error, &table.pipette_error}) {
    *error /= count;
  }
  return table;
}

std::string ToText(const MegatronTable& table) {
  std::string text = fmt::format(
      "Constants: matrix products reach {:.1f} %, links in a node {:.1f} %, "
      "links between nodes {:.1f} % of the data sheet's figures;\n"
      "calibrated on the rows marked *. TFLOP/s per GPU.\n\n"
      "{:>6} {:>5} {:>9}  {:>16}  {:>16}  {:>16}\n",
      100 * table.constants.gemm, 100 * table.constants.link,
      100 * table.constants.network, "model", "GPUs", "published", "simulated",
      "AMP", "Pipette");
  for (size_t i = 0; i < table.rows.size(); ++i) {
    const MegatronRun& run = kMegatronRuns[i];
    auto cell = [&](double value) {
      return fmt::format("{:.1f} ({:+.1f} %)", value,
                         100 * (value / run.published_tflops - 1));
    };
    text +=
        fmt::format("{:>6} {:>5} {:>8}{} {:>17} {:>17} {:>17}\n", run.name,
                    run.gpus, run.published_tflops, run.calibration ? "*" : " ",
                    cell(table.rows[i].simulated), cell(table.rows[i].amp),
                    cell(table.rows[i].pipette));
  }
  text += fmt::format(
      "\nMean absolute error over the other seven rows: simulated {:.1f} %, "
      "AMP {:.1f} %, Pipette {:.1f} %\n",
      100 * table.simulated_error, 100 * table.amp_error,
      100 * table.pipette_error);
  return text;
}

}  // namespace trireme
