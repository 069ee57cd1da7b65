#include "tests/parity/tiny_job.h"

#include <algorithm>
#include <mutex>
#include <numeric>
#include <utility>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "google/protobuf/text_format.h"
#include "models/objective/classification.h"
#include "models/objective/next_token.h"
#include "models/objective/reconstruction.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "scheduler/plan/plan.h"
#include "tests/parity/tiny_families.h"

namespace trireme {
namespace {

constexpr int64_t kSteps = 3;
constexpr double kLabelSmoothing = 0.1;

int64_t WorldSizeOf(const GridCase& grid) {
  const auto& stage_ranks = grid.plan.skip().stage_ranks();
  if (!stage_ranks.empty()) {
    return std::accumulate(stage_ranks.begin(), stage_ranks.end(), int64_t{0});
  }
  return grid.ranks();
}

}  // namespace

TrainingSetup SetupOf(const GridCase& grid) {
  TrainingSetup setup;
  setup.family = FamilyOf(grid);
  if (!grid.other_heights.empty()) {
    setup.buckets.push_back({{grid.height, kWidth}, setup.family});
  }
  for (const int64_t height : grid.other_heights) {
    const PictureSize size = {height, kWidth};
    setup.buckets.push_back({size, FamilyAt(*setup.family, size).value()});
  }
  setup.learning_rate.peak = 2e-3;
  // Adam turns the rounding noise of vanishing gradients into whole steps; a
  // larger eps leaves noise small.
  setup.optimizer.eps = grid.dtype == DType::kFloat32 ? 1e-3 : 1e-5;
  setup.optimizer.clip_norm = grid.clip_norm;
  setup.dtype = grid.dtype;
  setup.loss_scale = {.enabled = grid.dtype == DType::kFloat16,
                      .initial = 1024};
  setup.seed = 7;
  setup.global_batch = grid.batch;
  setup.trained = grid.trained;
  if (grid.fp8) {
    setup.float8 = {.layers = {"blocks.*"}, .except = {"*.modulation"}};
    if (grid.delayed) setup.float8.history = 2;
  }
  if (setup.family->reconstructs()) {
    setup.objective =
        std::make_shared<ReconstructionObjective>(setup.global_batch);
  } else if (grid.diffusion.has_value()) {
    setup.objective = std::make_shared<DiffusionObjective>(
        *grid.diffusion, setup.seed, setup.global_batch);
  } else if (grid.mesh_tokens) {
    setup.objective = std::make_shared<NextTokenObjective>(setup.global_batch);
  } else if (grid.swin) {
    setup.objective = std::make_shared<ClassificationObjective>(
        kLabelSmoothing, setup.global_batch);
  } else {
    RectifiedFlowConfig flow = grid.flow;
    const FieldSpec samples = setup.family->samples();
    if (!samples.counted_by.empty()) {
      flow.counted_field = samples.counted_by;
      flow.counted_channels = samples.shape.dim(1);
    }
    setup.objective = std::make_shared<RectifiedFlowObjective>(
        flow, setup.seed, setup.global_batch);
  }
  return setup;
}

Plan PlanOf(const GridCase& grid) {
  const TrainingSetup setup = SetupOf(grid);
  Plan plan = grid.plan;
  plan.mutable_grid()->set_tp(grid.tp);
  plan.mutable_grid()->set_cp(grid.cp);
  plan.mutable_grid()->set_pp(grid.pp);
  plan.mutable_grid()->set_dp(grid.dp);
  plan.mutable_grid()->set_ep(grid.ep);
  // Small enough that there are several buckets.
  if (!plan.has_gradient_bucket_bytes()) {
    plan.set_gradient_bucket_bytes(16 << 10);
  }
  const absl::StatusOr<Plan> resolved =
      ResolvePlan(plan, {.world_size = WorldSizeOf(grid),
                         .global_batch = setup.global_batch,
                         .num_blocks = setup.family->Shape().layers,
                         .heads = setup.family->Shape().heads,
                         .experts = setup.family->Shape().experts,
                         .expert_hidden = setup.family->Shape().expert_hidden});
  CHECK_OK(resolved.status());
  return *resolved;
}

std::vector<std::string> GridCase::Features() const {
  std::vector<std::string> features = {
      fmt::format("tp{}", tp), fmt::format("cp{}", cp), fmt::format("pp{}", pp),
      fmt::format("dp{}", dp), std::string(DTypeName(dtype))};
  const auto add = [&features](bool present, std::string feature) {
    if (present) features.push_back(std::move(feature));
  };
  add(text != Text::kNone, text == Text::kCross ? "cross" : "joint");
  add(height != 8, fmt::format("height{}", height));
  for (const int64_t other : other_heights) {
    add(true, fmt::format("and{}", other));
  }
  add(layers != 4, fmt::format("layers{}", layers));
  add(heads != 8, fmt::format("heads{}", heads));
  add(batch != 8, fmt::format("batch{}", batch));
  add(positions != Dit::ROPE, Dit::Positions_Name(positions));
  add(!qk_norm, "plainqk");
  add(token_set && lattice == 0, "set");
  add(lattice > 0, fmt::format("lattice{}", lattice));
  add(mmdit, fmt::format("mmdit_single{}", single_layers));
  add(hidream, fmt::format("hidream_single{}", single_layers));
  for (const auto& [condition, model] :
       {std::pair(triposg, "triposg"), std::pair(sparse_dit, "sparsedit")}) {
    if (!condition.has_value()) continue;
    switch (*condition) {
      case CrossCondition::Kind::kClass:
        features.push_back(fmt::format("{}_class", model));
        break;
      case CrossCondition::Kind::kFeatures:
        features.push_back(fmt::format("{}_features", model));
        break;
      case CrossCondition::Kind::kPicture:
        features.push_back(fmt::format("{}_picture", model));
        break;
    }
  }
  add(shape_vae, "shapevae");
  add(occupancy, "occupancy");
  add(sparse_vae, "sparsevae");
  add(conditions_per_block, "perblock");
  if (diffusion.has_value()) {
    const bool of_v = diffusion->schedule.prediction == DiffusionPrediction::kV;
    features.push_back(of_v ? "v" : "noise");
    add(diffusion->min_snr_gamma > 0, "minsnr");
    add(diffusion->schedule.learned_variance, "variance");
  }
  add(mesh_tokens, "meshtokens");
  add(swin, "swin");
  add(drop_path > 0, "droppath");
  add(flow.predicts_clean, "clean");
  add(flow.compares_clean, "lossofclean");
  add(views > 1, fmt::format("views{}", views));
  add(view_streams, "streams");
  add(flow.match_channels > 0, fmt::format("match{}", flow.match_channels));
  add(image_attention_layers > 0,
      fmt::format("imageattention{}", image_attention_layers));
  add(trained.kind == TrainedParameters::Kind::kAdapters,
      fmt::format("adapters{}", trained.rank));
  add(trained.decompose, "decomposing");
  add(trained.kind == TrainedParameters::Kind::kLayers, "layers");
  add(trained.frozen == WeightFormat::kFloat8, "float8");
  add(trained.frozen == WeightFormat::kNormalFloat4, "normal_float4");
  add(fp8, "fp8");
  add(delayed, "delayed");
  add(ep != 1, fmt::format("ep{}", ep));
  if (moe.has_value()) {
    features.push_back(fmt::format("experts{}of{}", moe->top_k, moe->experts));
    add(moe->kind == MoeConfig::ExpertKind::kGelu, "gelu");
    add(moe->shared_hidden > 0, "shared");
    add(moe->bias, "biases");
    add(moe->normalize, "normalized");
    add(moe->router == MoeConfig::RouterKind::kCosine, "cosine");
    add(moe->scores == MoeConfig::Scores::kSigmoid, "sigmoid");
    add(moe->choice == MoeConfig::Choice::kExperts, "expertschoose");
    add(moe->top_groups != moe->groups,
        fmt::format("groups{}of{}", moe->top_groups, moe->groups));
    add(moe->capacity_factor > 0, "capacity");
    add(moe->drop == MoeConfig::Drop::kByScore, "byscore");
    add(moe->noise > 0, "noise");
    add(moe->bias_step > 0, "bias");
    add(moe->importance_weight > 0, "importance");
    add(moe->balance_over == MoeConfig::BalanceOver::kBatch, "overbatch");
    add(moe->importance_over == MoeConfig::BalanceOver::kBatch,
        "importanceoverbatch");
    add(moe->learns_by_microbatch(), "overmicrobatch");
  }
  add(plan.has_microbatches(), fmt::format("mb{}", plan.microbatches()));
  add(plan.has_microbatch_size(),
      fmt::format("mbof{}", plan.microbatch_size()));
  add(plan.schedule() != Plan::SCHEDULE_UNSPECIFIED,
      Plan::Schedule_Name(plan.schedule()));
  add(plan.has_chunks_per_rank(),
      fmt::format("chunks{}", plan.chunks_per_rank()));
  add(plan.has_microbatch_group(),
      fmt::format("group{}", plan.microbatch_group()));
  std::string stages = "stages";
  for (const Plan::Stage& stage : plan.stages()) {
    stages += fmt::format("_{}", stage.blocks());
  }
  add(plan.stages_size() > 0, stages);
  add(plan.sequence_parallel(), "sp");
  add(plan.has_ulysses(), fmt::format("ulysses{}", plan.ulysses()));
  add(plan.recompute() != Plan::RECOMPUTE_UNSPECIFIED,
      Plan::Recompute_Name(plan.recompute()));
  add(plan.has_recompute_blocks(),
      fmt::format("blocks{}", plan.recompute_blocks()));
  add(plan.sharding() != Plan::SHARDING_UNSPECIFIED,
      Plan::Sharding_Name(plan.sharding()));
  add(plan.has_shard_group(), fmt::format("of{}", plan.shard_group()));
  add(plan.bf16_gradient_messages(), "bf16wire");
  add(plan.reduce_order() == Plan::FAST, "fastsums");
  if (plan.has_experts()) {
    const Plan::Experts& experts = plan.experts();
    features.push_back("move" + Plan::Experts::Move_Name(experts.move()));
    add(experts.has_node_ranks(), fmt::format("by{}", experts.node_ranks()));
    add(experts.deduplicate(), "once");
    add(experts.has_chunks(), fmt::format("in{}", experts.chunks()));
    add(experts.has_shadowed(), fmt::format("shadowed{}", experts.shadowed()));
    add(experts.has_row_copies(), fmt::format("to{}", experts.row_copies()));
  }
  add(plan.has_offload(),
      fmt::format("offload{}", plan.offload().resident_units()));
  add(plan.offload().device_blocks() > 0,
      fmt::format("first{}", plan.offload().device_blocks()));
  add(plan.offload().activations(), "inputs");
  add(plan.offload().has_nvme(),
      plan.offload().nvme().io() == Plan::Offload::Nvme::THREADS
          ? "drive_threads"
          : "drive");
  add(plan.offload().nvme().host_units() > 0,
      fmt::format("blocks{}", plan.offload().nvme().host_units()));
  return features;
}

std::string GridCase::Name() const {
  return fmt::format("{}", fmt::join(Features(), "_"));
}

Plan PlanFromText(const char* text) {
  Plan plan;
  CHECK(google::protobuf::TextFormat::ParseFromString(text, &plan)) << text;
  return plan;
}

GridCase OneRank(const GridCase& grid) {
  GridCase reference = grid;
  reference.tp = reference.cp = reference.pp = reference.dp = 1;
  reference.ep = 1;
  reference.plan.Clear();
  if (grid.moe.has_value() && grid.moe->learns_by_microbatch()) {
    reference.plan.set_microbatch_size(PlanOf(grid).microbatch_size());
  }
  return reference;
}

GridRecord Record(const GridCase& grid, const FactoryWrapper& wrap,
                  const DeviceMaker& device) {
  const TrainingSetup setup = SetupOf(grid);
  const Plan plan = PlanOf(grid);
  std::mutex mutex;
  GridRecord result;
  RunThreadRanks(static_cast<int>(grid.ranks()),
                 [&](CommunicatorFactory& factory, int rank) {
                   const std::unique_ptr<Device> own =
                       device ? device(rank)
                              : std::make_unique<CpuDevice>(int64_t{1} << 40);
                   const std::unique_ptr<CommunicatorFactory> wrapped =
                       wrap ? wrap(factory) : nullptr;
                   absl::StatusOr<GridRecord> record = RecordGrid(
                       setup, plan, *own, wrapped ? *wrapped : factory,
                       RandomBatches(setup), kSteps);
                   CHECK_OK(record.status());
                   const std::lock_guard lock(mutex);
                   if (rank == 0) result = *std::move(record);
                 });
  return result;
}

const GridRecord& References::Of(const GridCase& grid) {
  const GridCase reference = OneRank(grid);
  const auto [found, is_new] = records_.try_emplace(reference.Name());
  if (is_new) found->second = Record(reference);
  return found->second;
}

ParityReport Compare(const GridRecord& reference, const GridRecord& record) {
  const absl::StatusOr<ParityReport> report = CompareRecords(reference, record);
  CHECK_OK(report.status());
  return *report;
}

}  // namespace trireme
