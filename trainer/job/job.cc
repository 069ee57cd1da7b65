#include "trainer/job/job.h"

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "models/resolve.h"
#include "models/sampling/diffusion_sampler.h"
#include "runtime/core/status.h"
#include "scheduler/pieces/model_shape.h"
#include "trainer/job/data_config.h"
#include "trainer/job/encoder_drops_of.h"
#include "trainer/planning/chunk_figures.h"
#include "trainer/planning/model_shape_of.h"
#include "trainer/rank/model_parameters.h"

namespace trireme {
namespace {

// What no machine computes, so that sizes in bytes, over all layers and all
// that backward needs, stay in 64 bits.
absl::Status CheckActivations(const ModelFamily& family, int64_t global_batch) {
  constexpr double kMost = 0x1p52;
  const ModelShape shape = family.Shape();
  const double tokens = static_cast<double>(shape.tokens + shape.text_tokens);
  double width = static_cast<double>(std::max(shape.hidden, shape.mlp_hidden));
  // What the embedding reads may be wider than the blocks.
  for (const FieldSpec& field : AllFields(family)) {
    width = std::max(width,
                     static_cast<double>(field.shape.num_elements()) / tokens);
  }
  const double found = static_cast<double>(global_batch) *
                       static_cast<double>(shape.layers) * tokens * width;
  if (found <= kMost) return absl::OkStatus();
  return InvalidArgument(
      "global_batch: found {} samples x {} layers x {:.0f} tokens x {:.0f} "
      "channels = {:.2g} activations, expected at most {:.2g}",
      global_batch, shape.layers, tokens, width, found, kMost);
}

LearningRateSchedule::Decay DecayOf(OptimizerConfig::Decay decay) {
  switch (decay) {
    case OptimizerConfig::COSINE:
      return LearningRateSchedule::Decay::kCosine;
    case OptimizerConfig::LINEAR:
      return LearningRateSchedule::Decay::kLinear;
    default:
      return LearningRateSchedule::Decay::kConstant;
  }
}

std::vector<ParameterGroup> GroupsOf(const OptimizerConfig& optimizer) {
  std::vector<ParameterGroup> groups;
  for (const OptimizerConfig::Group& config : optimizer.groups()) {
    ParameterGroup& group = groups.emplace_back();
    group.match = config.match();
    group.learning_rate_scale = config.learning_rate_scale();
    if (config.has_weight_decay()) group.weight_decay = config.weight_decay();
  }
  return groups;
}

WeightFormat FormatOf(TrainConfig::Frozen frozen) {
  switch (frozen) {
    case TrainConfig::FP8:
      return WeightFormat::kFloat8;
    case TrainConfig::NF4:
      return WeightFormat::kNormalFloat4;
    default:
      return WeightFormat::kFull;
  }
}

TrainedParameters TrainedOf(const TrainConfig& train) {
  TrainedParameters trained;
  if (train.parameters() == TrainConfig::LAYERS) {
    trained.kind = TrainedParameters::Kind::kLayers;
  } else if (train.parameters() == TrainConfig::ADAPTERS) {
    trained.kind = TrainedParameters::Kind::kAdapters;
  } else {
    return trained;
  }
  trained.layers = {train.layers().begin(), train.layers().end()};
  trained.except = {train.except().begin(), train.except().end()};
  trained.rank = train.rank();
  trained.alpha = train.alpha();
  trained.decompose = train.decompose();
  trained.frozen = FormatOf(train.frozen());
  return trained;
}

Float8Layers Float8Of(const Float8Config& fp8) {
  return {.layers = {fp8.layers().begin(), fp8.layers().end()},
          .except = {fp8.except().begin(), fp8.except().end()},
          .history = fp8.has_delayed() ? fp8.delayed().history() : 0,
          .margin = static_cast<int>(fp8.delayed().margin())};
}

absl::StatusOr<std::vector<SizedFamily>> FamiliesAt(
    const std::vector<PictureSize>& sizes, const ModelFamily& family) {
  std::vector<SizedFamily> families;
  for (const PictureSize& size : sizes) {
    const auto sized = FamilyAt(family, size);
    RETURN_IF_ERROR(WithContext(
        sized.status(),
        fmt::format("data.buckets.sizes: {}x{}", size.height, size.width)));
    families.push_back({size, *sized});
  }
  return families;
}

// Of a sample; of one of each bucket, where there are several.
std::vector<int64_t> TokensOf(const TrainingSetup& setup) {
  std::vector<int64_t> tokens;
  for (const SizedFamily& sized : setup.buckets) {
    tokens.push_back(sized.family->Shape().tokens);
  }
  if (tokens.empty()) tokens.push_back(setup.family->Shape().tokens);
  return tokens;
}

}  // namespace

DataSummary SummaryOf(const Dataset& dataset) {
  DataSummary summary = {.samples = dataset.size(),
                         .classes = dataset.num_classes()};
  if (const Buckets* const buckets = dataset.buckets()) {
    for (const std::vector<int64_t>& samples : buckets->samples) {
      summary.bucket_samples.push_back(static_cast<int64_t>(samples.size()));
    }
  }
  return summary;
}

Solver SolverOf(const SampleConfig& config) {
  switch (config.solver()) {
    case SampleConfig::HEUN:
      return Solver::kHeun;
    case SampleConfig::DDIM:
      return Solver::kDdim;
    case SampleConfig::DDPM:
      return Solver::kDdpm;
    default:
      return Solver::kEuler;
  }
}

absl::Status CheckPrompts(std::string_view field, int64_t prompts,
                          const ModelFamily& family) {
  if (prompts == 0) return absl::OkStatus();
  const auto refused = [&](std::string_view why) {
    return InvalidArgument("{}: found {}, expected none for a model that {}",
                           field, prompts, why);
  };
  const std::vector<FieldSpec> fields = AllFields(family);
  const auto text = std::find_if(
      fields.begin(), fields.end(),
      [](const FieldSpec& spec) { return spec.name == kTextField; });
  if (text == fields.end()) return refused("reads no text");
  if (!text->from_caption) {
    return refused("reads an encoder's states of text, not the text itself");
  }
  if (family.num_classes() > 0) {
    return refused("is conditioned by classes as well");
  }
  return absl::OkStatus();
}

absl::StatusOr<TrainingSetup> SetupAt(const TrainingSetup& setup,
                                      const Job& job, const PictureSize& size) {
  TrainingSetup sized = setup;
  ASSIGN_OR_RETURN(sized.family, FamilyAt(*setup.family, size));
  sized.buckets.clear();
  ObjectiveConfig objective = job.objective();
  if (objective.rectified_flow().has_dynamic_shift()) {
    objective.mutable_rectified_flow()->clear_shift();
  }
  ASSIGN_OR_RETURN(
      const ResolvedObjective resolved,
      ResolveObjective(objective, sized.family->samples(), setup.seed,
                       setup.global_batch, TokensOf(sized)));
  sized.objective = resolved.training;
  sized.sampling_shift = resolved.sampling_shift;
  return sized;
}

absl::StatusOr<TrainingSetup> ResolveJob(Job& job, const DataSummary& data) {
  TrainingSetup setup;
  ASSIGN_OR_RETURN(setup.family,
                   ResolveModel(*job.mutable_model(),
                                DataFormatOf(job.data(), data.classes)));
  if (job.data().has_buckets()) {
    ASSIGN_OR_RETURN(setup.buckets,
                     FamiliesAt(SizesOf(job.data()), *setup.family));
    setup.family = setup.buckets.front().family;
  }
  const DataFormat format = DataFormatOf(job.data(), data.classes);
  if (setup.family->reconstructs() && !format.surfaces &&
      format.voxel_resolution == 0) {
    return InvalidArgument(
        "data: found {}, expected shapes without mosaics (data.shapes, grids "
        "0) for an autoencoder of shapes",
        job.data().has_shapes() ? "mosaics" : "no shapes");
  }
  if (setup.family->reconstructs()) {
    if (job.has_validation() || job.sample().every() > 0) {
      return InvalidArgument(
          "{}: found with an autoencoder, expected none (trireme sample shows "
          "what it gives back of held-out shapes)",
          job.has_validation() ? "validation" : "sample.every");
    }
    // What it gives back is drawn when it is asked for.
    job.mutable_sample()->set_at_end(false);
  }
  if (setup.family->classifies()) {
    if (job.sample().every() > 0) {
      return InvalidArgument(
          "sample.every: found {} with a model that names classes and draws "
          "nothing, expected 0",
          job.sample().every());
    }
    job.mutable_sample()->set_at_end(false);
  }
  RETURN_IF_ERROR(CheckActivations(*setup.family, job.global_batch()));
  RETURN_IF_ERROR(CheckPrompts("sample.prompts", job.sample().prompts_size(),
                               *setup.family));
  ASSIGN_OR_RETURN(
      const ResolvedObjective objective,
      setup.family->classifies()
          ? ResolveClassification(*job.mutable_objective(), job.global_batch())
          : ResolveObjective(*job.mutable_objective(), setup.family->samples(),
                             job.seed(), job.global_batch(), TokensOf(setup),
                             !(setup.family->predictions().shape ==
                               setup.family->samples().shape),
                             setup.family->reconstructs()));
  setup.objective = objective.training;
  setup.sampling_shift = objective.sampling_shift;
  if (job.sample().solver() == SampleConfig::SOLVER_UNSPECIFIED) {
    job.mutable_sample()->set_solver(
        setup.objective->noise_schedule() != nullptr ? SampleConfig::DDIM
                                                     : SampleConfig::EULER);
  }
  RETURN_IF_ERROR(WithContext(CheckSampling({.solver = SolverOf(job.sample()),
                                             .steps = job.sample().steps()},
                                            setup.objective->noise_schedule()),
                              "sample"));
  const OptimizerConfig& optimizer = job.optimizer();
  setup.optimizer = {.beta1 = optimizer.beta1(),
                     .beta2 = optimizer.beta2(),
                     .eps = optimizer.eps(),
                     .weight_decay = optimizer.weight_decay(),
                     .clip_norm = optimizer.clip_norm(),
                     .ema_decay = optimizer.ema_decay(),
                     .groups = GroupsOf(optimizer)};
  setup.learning_rate = {.peak = optimizer.learning_rate(),
                         .warmup_steps = optimizer.warmup_steps(),
                         .decay = DecayOf(optimizer.decay()),
                         .final = optimizer.final_learning_rate(),
                         .total_steps = job.steps()};
  switch (job.precision()) {
    case Job::FP32:
      setup.dtype = DType::kFloat32;
      break;
    case Job::FP64:
      setup.dtype = DType::kFloat64;
      break;
    case Job::FP16:
      setup.dtype = DType::kFloat16;
      setup.loss_scale = {
          .enabled = true,
          .initial = job.loss_scaling().initial(),
          .growth_interval = job.loss_scaling().growth_interval(),
          .hysteresis = job.loss_scaling().hysteresis(),
          .minimum = job.loss_scaling().minimum()};
      break;
    default:
      setup.dtype = DType::kBFloat16;
  }
  setup.kernel_libraries.attention = job.attention_kernels() == Job::OWN
                                         ? KernelLibrary::kOwn
                                         : KernelLibrary::kCudnn;
  setup.kernel_libraries.tf32 = job.tf32();
  RETURN_IF_ERROR(setup.family->CheckPrecision(setup.dtype));
  setup.seed = job.seed();
  setup.global_batch = job.global_batch();
  ASSIGN_OR_RETURN(setup.encoder_drops,
                   EncoderDropsOf(job.objective(), *setup.family));
  setup.trained = TrainedOf(job.train());
  RETURN_IF_ERROR(CheckTrained(*setup.family, setup.trained));
  setup.float8 = Float8Of(job.fp8());
  RETURN_IF_ERROR(CheckFloat8(*setup.family, setup.float8));
  RETURN_IF_ERROR(
      CheckGroups(*setup.family, setup.trained, setup.optimizer.groups));
  if (!setup.trained.all()) {
    // What reads a checkpoint later may stand elsewhere.
    std::error_code error;
    setup.base = {
        .weights =
            std::filesystem::absolute(job.init().weights(), error).string(),
        .ema = job.init().ema()};
  }
  const MoeConfig* experts = setup.family->experts();
  if (experts != nullptr && experts->chooses_by_sample()) {
    // A capacity may be less than a token, of as many as reach the experts.
    RETURN_IF_ERROR(CheckModel(setup));
  }
  return setup;
}

PlanContext PlanContextOf(const TrainingSetup& setup, int64_t world_size) {
  const ModelShape shape = ModelShapeOf(setup);
  const ModelPieces pieces = PiecesOf(shape, {}, Plan::NONE, false);
  PartitionCosts costs;
  for (const BlockRun& run : BlockRunsOf(shape)) {
    costs.blocks.insert(costs.blocks.end(), run.count,
                        ProductFlops(pieces.blocks[run.kind].kernels.forward));
  }
  costs.embedding = ProductFlops(pieces.embedding.kernels.forward);
  costs.head = ProductFlops(pieces.head.kernels.forward);
  return {.world_size = world_size,
          .global_batch = setup.global_batch,
          .mlp_hidden = shape.mlp_hidden,
          .num_blocks = shape.layers,
          .heads = shape.heads,
          .experts = shape.experts,
          .expert_hidden = shape.expert_hidden,
          .shared_hidden = shape.shared_hidden,
          .context_parallel = shape.context_parallel,
          .sequence_parallel = shape.sequence_parallel,
          .costs = std::move(costs)};
}

}  // namespace trireme
