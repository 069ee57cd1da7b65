#include "tools/bench/published/megatron_h100_table.h"

#include <cmath>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/costs/estimate.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.h"
#include "tools/bench/published/gpt.h"

namespace trireme {
namespace {

constexpr int64_t kLayers = 96;
constexpr int64_t kHidden = 12288;
constexpr int64_t kHeads = 96;
constexpr int64_t kTokens = 4096;
constexpr int64_t kVocabulary = 131072;
constexpr int64_t kTp = 8;
constexpr int64_t kPp = 6;
constexpr int64_t kGlobalBatch = 1152;

Gpt Gpt177B() {
  return {.name = "177B",
          .layers = kLayers,
          .hidden = kHidden,
          .heads = kHeads,
          .tokens = kTokens,
          .vocabulary = kVocabulary,
          .gradient_bytes = 4};
}

absl::StatusOr<Plan> PlanOf(const H100Run& run, int64_t layers_per_chunk) {
  Plan plan;
  plan.set_reduce_order(Plan::FAST);
  plan.mutable_grid()->set_tp(kTp);
  plan.mutable_grid()->set_pp(kPp);
  plan.mutable_grid()->set_dp(run.gpus / (kTp * kPp));
  plan.set_microbatch_size(1);
  plan.set_schedule(Plan::INTERLEAVED);
  plan.set_chunks_per_rank(kLayers / kPp / layers_per_chunk);
  plan.set_sequence_parallel(true);
  plan.set_sharding(Plan::OPTIMIZER);
  return ResolvePlan(plan, {.world_size = run.gpus,
                            .global_batch = kGlobalBatch,
                            .num_blocks = kLayers,
                            .heads = kHeads});
}

}  // namespace

absl::StatusOr<double> PredictH100Mfu(const H100Run& run,
                                      int64_t layers_per_chunk,
                                      const Efficiencies& constants) {
  ASSIGN_OR_RETURN(const Cluster described,
                   DescribeCluster({.device = "H100",
                                    .nodes = run.gpus / 8,
                                    .network = "ndr",
                                    .gemm_efficiency = constants.gemm,
                                    .link_efficiency = constants.link,
                                    .network_efficiency = constants.network}));
  ASSIGN_OR_RETURN(const ClusterModel cluster, ResolveCluster(described));
  ASSIGN_OR_RETURN(const Plan plan, PlanOf(run, layers_per_chunk));
  const Gpt gpt = Gpt177B();
  const ModelShape model = GptShape(gpt, kPp);
  std::vector<PlanCosts> costs = CostsOfReplicas(model, cluster, plan);
  for (PlanCosts& replica : costs) ChargeGpt(gpt, cluster, plan, replica);
  ASSIGN_OR_RETURN(const Estimate estimate,
                   EstimateOfCosts(model, cluster, plan, costs));
  return estimate.mfu;
}

absl::StatusOr<H100Table> MakeH100Table(const Efficiencies& constants) {
  H100Table table;
  table.error.assign(kH100LayersPerChunk.size(), 0);
  for (const H100Run& run : kH100Runs) {
    std::vector<double>& row = table.mfu.emplace_back();
    for (size_t i = 0; i < kH100LayersPerChunk.size(); ++i) {
      ASSIGN_OR_RETURN(const double mfu,
                       PredictH100Mfu(run, kH100LayersPerChunk[i], constants));
      row.push_back(mfu);
      table.error[i] += std::abs(mfu / run.published_mfu - 1) /
                        static_cast<double>(kH100Runs.size());
    }
  }
  return table;
}

std::string ToText(const H100Table& table) {
  std::string text = fmt::format(
      "MFU of the 177B model on H100s (tp 8, pp 6, 4096 tokens, batch 1152), "
      "predicted with the\nsimulator's constants above. Assumed: microbatches "
      "of 1, interleaved with so many layers\na chunk, sequence parallelism, "
      "sharded optimizer, gradients reduced behind backward.\n+ the batch is "
      "assumed too.\n\n{:>5} {:>10}",
      "GPUs", "published");
  for (const int64_t layers : kH100LayersPerChunk) {
    text += fmt::format(
        " {:>18}", fmt::format("{} layer{}", layers, layers > 1 ? "s" : ""));
  }
  text += "\n";
  for (size_t i = 0; i < kH100Runs.size(); ++i) {
    const H100Run& run = kH100Runs[i];
    text += fmt::format("{:>5} {:>8.0f}{} %", run.gpus, 100 * run.published_mfu,
                        run.batch_assumed ? "+" : " ");
    for (const double mfu : table.mfu[i]) {
      text += fmt::format(" {:>18}",
                          fmt::format("{:.1f} % ({:+.1f} %)", 100 * mfu,
                                      100 * (mfu / run.published_mfu - 1)));
    }
    text += "\n";
  }
  text += fmt::format("{:>16}", "mean error");
  for (const double error : table.error) {
    text += fmt::format(" {:>18}", fmt::format("{:.1f} %", 100 * error));
  }
  return text + "\n";
}

}  // namespace trireme
