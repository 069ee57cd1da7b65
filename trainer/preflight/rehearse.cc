#include "trainer/preflight/rehearse.h"

#include <chrono>
#include <limits>
#include <memory>
#include <utility>

#include "fmt/format.h"
#include "runtime/comm/emulated.h"
#include "runtime/core/median.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "scheduler/costs/plan_costs.h"
#include "scheduler/partial/costs.h"
#include "scheduler/partial/route.h"
#include "scheduler/pieces/measured_times.h"
#include "trainer/planning/model_shape_of.h"
#include "trainer/rank/rank_model.h"

namespace trireme {
namespace {

double MedianCause(const Rehearsal& rehearsal, const std::string& cause) {
  std::vector<double> seconds;
  for (const StepMetrics& step : rehearsal.steps) {
    const auto found = step.exposed_s.find(cause);
    seconds.push_back(found == step.exposed_s.end() ? 0 : found->second);
  }
  return Median(std::move(seconds));
}

}  // namespace

absl::StatusOr<Rehearsal> Rehearse(const RehearseOptions& options,
                                   CommunicatorFactory& factory) {
  const ClusterModel& cluster = options.cluster;
  if (cluster.num_ranks() != factory.world_size()) {
    return InvalidArgument("{} ranks rehearse a cluster of {} devices",
                           factory.world_size(), cluster.num_ranks());
  }
  const int32_t node = cluster.node_of_rank[factory.world_rank()];
  ModelShape shape = ModelShapeOf(options.setup);
  UseMeasuredTimes(cluster, shape);
  // A unit sleeps once in each direction: no collective inside it has anything
  // to run behind.
  shape.hides_collectives = false;
  Rehearsal rehearsal;
  if (options.plan.has_skip()) {
    ASSIGN_OR_RETURN(const SkipEstimate predicted,
                     EstimateSkipPlan(shape, cluster, options.plan));
    rehearsal.predicted.step_s = predicted.step_s;
  } else {
    ASSIGN_OR_RETURN(rehearsal.predicted,
                     EstimatePlan(shape, cluster, options.plan));
  }

  CpuDevice device(cluster.DeviceOfNode(node).memory_bytes,
                   CpuDevice::Mode::kDry);
  CpuDevice payloads(std::numeric_limits<int64_t>::max());
  EmulatedWorld world(factory, payloads);
  EmulatedCompute compute;
  ASSIGN_OR_RETURN(
      const std::unique_ptr<RankModel> model,
      RankModel::Build(options.setup, options.plan, device, world));
  model->EmulateCompute(
      options.plan.has_skip()
          ? SkipArithmeticOn(shape, cluster, options.plan, node)
          : PlanCoster(shape, cluster, options.plan).ArithmeticOn(node),
      compute);
  if (options.plan.has_offload()) {
    // What ranks send one another goes over the emulated network.
    const auto rings = std::make_shared<PlanRings>(
        *PlanCoster(shape, cluster, options.plan).rings());
    for (StageRings& of_stage : *rings) {
      of_stage.reduction = of_stage.shards = of_stage.experts = StageGroups();
    }
    const PlanCosts costs =
        PlanCoster(shape, cluster, options.plan, rings).CostsOf(/*replica=*/0);
    const std::vector<ChunkCost>& chunks =
        costs.cost.chunks[model->grid().coordinate(Axis::kPipeline)];
    for (size_t chunk = 0; chunk < chunks.size(); ++chunk) {
      for (size_t unit = 0; unit < chunks[chunk].units.size(); ++unit) {
        compute.SetBeside(static_cast<int>(chunk), static_cast<int>(unit),
                          chunks[chunk].units[unit]);
      }
    }
  }

  StepMetricsCollector collector(*model);
  for (int64_t step = 0; step <= options.steps; ++step) {
    model->context().communicators().world().Barrier("step");
    const auto start = std::chrono::steady_clock::now();
    StepOptions step_options;
    step_options.step = step + 1;
    if (options.trace && step > 0) step_options.trace = &rehearsal.trace;
    ASSIGN_OR_RETURN(const GlobalStepResult result,
                     model->Step(model->DryBatch(), step_options));
    const double step_s =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
            .count();
    StepMetrics metrics = collector.Collect(result, /*data_s=*/0, step_s,
                                            /*skipped_samples=*/0);
    metrics.step = step;
    if (step > 0) rehearsal.steps.push_back(std::move(metrics));
  }
  return rehearsal;
}

double MedianStepSeconds(const Rehearsal& rehearsal) {
  std::vector<double> seconds;
  for (const StepMetrics& step : rehearsal.steps) {
    seconds.push_back(step.step_s);
  }
  return Median(std::move(seconds));
}

std::string RehearsalText(const Rehearsal& rehearsal) {
  const StepParts& parts = rehearsal.predicted.parts;
  std::vector<double> compute;
  for (const StepMetrics& step : rehearsal.steps) {
    compute.push_back(step.compute_s);
  }
  struct Row {
    const char* name;
    double predicted;
    double rehearsed;
  };
  const Row rows[] = {
      {"step", rehearsal.predicted.step_s, MedianStepSeconds(rehearsal)},
      {"compute", parts.compute_s + parts.recompute_s,
       Median(std::move(compute))},
      {"tp", parts.tp_s, MedianCause(rehearsal, "tp")},
      {"cp", parts.cp_s, MedianCause(rehearsal, "cp")},
      {"ep", parts.ep_s, MedianCause(rehearsal, "ep")},
      {"bubble", parts.bubble_s, MedianCause(rehearsal, "bubble")},
      {"pp", parts.pp_s, MedianCause(rehearsal, "pp")},
      {"dp", parts.dp_s, MedianCause(rehearsal, "dp")},
      {"copies", parts.copy_s, MedianCause(rehearsal, "copies")},
      {"optimizer", parts.optimizer_s, MedianCause(rehearsal, "optimizer")}};
  std::string text =
      fmt::format("{:<10}{:>12}{:>12}\n", "seconds", "predicted", "rehearsed");
  for (const Row& row : rows) {
    text += fmt::format("{:<10}{:>12.4f}{:>12.4f}\n", row.name, row.predicted,
                        row.rehearsed);
  }
  text += fmt::format(
      "the step is {:+.1f} % off what was predicted (median of {})\n",
      100 * (MedianStepSeconds(rehearsal) / rehearsal.predicted.step_s - 1),
      rehearsal.steps.size());
  return text;
}

}  // namespace trireme
