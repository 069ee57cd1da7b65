#include "scheduler/plan/plan.h"

#include "fmt/format.h"
#include "runtime/core/log.h"
#include "scheduler/plan/stage_ranks.h"
#include "scheduler/schedules/schedule.h"

namespace trireme {

std::vector<int64_t> EvenStages(int64_t num_blocks, int64_t num_stages) {
  CHECK_GE(num_stages, 1);
  CHECK_GE(num_blocks, num_stages);
  std::vector<int64_t> stages(num_stages, num_blocks / num_stages);
  const int64_t remainder = num_blocks % num_stages;
  for (int64_t i = 1; i <= remainder; ++i) ++stages[i];
  return stages;
}

std::vector<int64_t> BlocksOfRanks(const Plan& plan) {
  std::vector<int64_t> blocks(plan.grid().pp(), 0);
  const std::vector<StageLocation> stages = StagesOf(plan);
  for (size_t stage = 0; stage < stages.size(); ++stage) {
    blocks[stages[stage].rank] += plan.stages(static_cast<int>(stage)).blocks();
  }
  return blocks;
}

int64_t GridSize(const Plan::Grid& grid) {
  return int64_t{grid.tp()} * grid.cp() * grid.dp() * grid.pp();
}

GridCoordinates CoordinatesOf(const Plan::Grid& grid, int64_t logical_rank) {
  CHECK_GE(logical_rank, 0);
  CHECK_LT(logical_rank, GridSize(grid));
  GridCoordinates at;
  at.tp = logical_rank % grid.tp();
  logical_rank /= grid.tp();
  at.cp = logical_rank % grid.cp();
  logical_rank /= grid.cp();
  at.dp = logical_rank % grid.dp();
  at.pp = logical_rank / grid.dp();
  return at;
}

int64_t LogicalRankOf(const Plan::Grid& grid, const GridCoordinates& at) {
  return at.tp + grid.tp() * (at.cp + grid.cp() * (at.dp + grid.dp() * at.pp));
}

int64_t PhysicalRankOf(const Plan& plan, int64_t logical_rank) {
  CHECK_LT(logical_rank, plan.placement_size());
  return plan.placement(logical_rank);
}

std::string Summary(const Plan& plan) {
  const Plan::Grid& grid = plan.grid();
  std::vector<uint32_t> blocks;
  for (const Plan::Stage& stage : plan.stages()) {
    blocks.push_back(stage.blocks());
  }
  std::string text = fmt::format("tp {} x ", grid.tp());
  if (grid.cp() > 1) {
    text += fmt::format("cp {} (ulysses {}) x ", grid.cp(), plan.ulysses());
  }
  const auto& stage_ranks = plan.skip().stage_ranks();
  const std::string dp = stage_ranks.empty()
                             ? fmt::format("{}", grid.dp())
                             : fmt::format("{}", fmt::join(stage_ranks, "+"));
  text += fmt::format(
      "pp {} x dp {} ({} ranks), {}, {} microbatch{} of {} sample{}, stages of "
      "{} blocks",
      grid.pp(), dp, NumRanks(plan), Plan::Schedule_Name(plan.schedule()),
      plan.microbatches(), plan.microbatches() == 1 ? "" : "es",
      plan.microbatch_size(), plan.microbatch_size() == 1 ? "" : "s",
      fmt::join(blocks, "+"));
  if (grid.ep() > 1) text += fmt::format(", experts over ep {}", grid.ep());
  if (plan.has_experts()) {
    text += fmt::format(", moving {}",
                        Plan::Experts::Move_Name(plan.experts().move()));
    if (plan.experts().chunks() > 1) {
      text += fmt::format(" in {} chunks", plan.experts().chunks());
    }
    if (plan.experts().node_ranks() > 1) {
      text += fmt::format(" by nodes of {}", plan.experts().node_ranks());
    }
    if (plan.experts().deduplicate()) text += ", a token's once";
    if (plan.experts().row_copies() > 0) {
      text += fmt::format(" to {} of an expert's ranks",
                          plan.experts().row_copies());
    }
  }
  if (plan.chunks_per_rank() > 1) {
    text += fmt::format(", {} a rank", plan.chunks_per_rank());
  }
  if (plan.has_skip()) {
    text += fmt::format(", {} stages a microbatch{}",
                        plan.skip().stages_per_microbatch(),
                        plan.skip().swaps() ? ", some swapped" : "");
  }
  if (plan.sequence_parallel()) text += ", sequence parallel";
  if (plan.sharding() != Plan::REPLICATED) {
    text +=
        fmt::format(", sharding {} over {}",
                    Plan::Sharding_Name(plan.sharding()), plan.shard_group());
  }
  if (plan.bf16_gradient_messages()) text += ", bf16 gradient messages";
  if (plan.reduce_order() == Plan::FAST) text += ", sums by NCCL";
  if (plan.recompute() != Plan::NONE) {
    text +=
        fmt::format(", recompute {}", Plan::Recompute_Name(plan.recompute()));
    if (plan.has_recompute_blocks()) {
      text += fmt::format(" of {} blocks a stage", plan.recompute_blocks());
    }
  }
  if (plan.has_offload()) {
    text += fmt::format(", offloaded but for {} blocks a rank",
                        plan.offload().resident_units());
    if (plan.offload().device_blocks() > 0) {
      text += fmt::format(" and the first {} of a stage",
                          plan.offload().device_blocks());
    }
    if (plan.offload().activations()) text += " with their inputs";
    if (plan.offload().has_nvme()) text += ", optimizer states on a drive";
    if (plan.offload().nvme().host_units() > 0) {
      text += fmt::format(" with all weights but for {} blocks",
                          plan.offload().nvme().host_units());
    }
  }
  return text;
}

}  // namespace trireme
