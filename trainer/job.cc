#include "trainer/job.h"

#include <algorithm>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "fmt/format.h"
#include "models/autoencoder/latent_cache.h"
#include "models/data/webdataset.h"
#include "models/resolve.h"
#include "models/sampling/diffusion_sampler.h"
#include "runtime/core/status.h"
#include "scheduler/pieces/transformer_pieces.h"
#include "trainer/model_parameters.h"
#include "trainer/model_shape_of.h"

namespace trireme {
namespace {

// Memory is counted in signed 64 bits.
constexpr uint64_t kMaxMemoryLimit = uint64_t{1} << 60;
// Those of caches (tools/data_command.cc).
constexpr int64_t kMaxMosaicGrids = 4096;
constexpr int64_t kMaxMosaicResolution = 16;

absl::Status CheckRange(std::string_view field, double found, double low,
                        double high) {
  if (found >= low && found <= high) return absl::OkStatus();
  return InvalidArgument("{}: found {}, expected {} to {}", field, found, low,
                         high);
}

absl::Status CheckWhole(std::string_view field, uint64_t found, uint64_t low,
                        uint64_t high) {
  if (found >= low && found <= high) return absl::OkStatus();
  return InvalidArgument("{}: found {}, expected {} to {}", field, found, low,
                         high);
}

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

absl::Status FillGroups(OptimizerConfig& optimizer) {
  for (int i = 0; i < optimizer.groups_size(); ++i) {
    OptimizerConfig::Group& group = *optimizer.mutable_groups(i);
    const std::string field = fmt::format("optimizer.groups[{}]", i);
    if (!group.has_learning_rate_scale()) group.set_learning_rate_scale(1);
    RETURN_IF_ERROR(CheckRange(field + ".learning_rate_scale",
                               group.learning_rate_scale(), 0, 1000));
    RETURN_IF_ERROR(
        CheckRange(field + ".weight_decay", group.weight_decay(), 0, 100));
  }
  return absl::OkStatus();
}

absl::Status FillOptimizer(OptimizerConfig& optimizer) {
  if (!optimizer.has_learning_rate()) optimizer.set_learning_rate(1e-4);
  if (!optimizer.has_warmup_steps()) optimizer.set_warmup_steps(0);
  if (optimizer.decay() == OptimizerConfig::DECAY_UNSPECIFIED) {
    optimizer.set_decay(OptimizerConfig::CONSTANT);
  }
  if (!optimizer.has_beta1()) optimizer.set_beta1(0.9);
  if (!optimizer.has_beta2()) optimizer.set_beta2(0.95);
  if (!optimizer.has_eps()) optimizer.set_eps(1e-8);
  if (!optimizer.has_weight_decay()) optimizer.set_weight_decay(0);
  if (!optimizer.has_clip_norm()) optimizer.set_clip_norm(1);
  if (!optimizer.has_ema_decay()) optimizer.set_ema_decay(0.9999);
  if (optimizer.decay() == OptimizerConfig::CONSTANT) {
    if (optimizer.has_final_learning_rate()) {
      return InvalidArgument(
          "optimizer.final_learning_rate: found {} with decay CONSTANT, "
          "expected it with COSINE or LINEAR",
          optimizer.final_learning_rate());
    }
  } else if (!optimizer.has_final_learning_rate()) {
    optimizer.set_final_learning_rate(0);
  }
  RETURN_IF_ERROR(CheckRange("optimizer.final_learning_rate",
                             optimizer.final_learning_rate(), 0, 100));
  RETURN_IF_ERROR(FillGroups(optimizer));
  const double below_one = 1.0 - 1e-12;
  RETURN_IF_ERROR(
      CheckRange("optimizer.learning_rate", optimizer.learning_rate(), 0, 100));
  RETURN_IF_ERROR(
      CheckRange("optimizer.beta1", optimizer.beta1(), 0, below_one));
  RETURN_IF_ERROR(
      CheckRange("optimizer.beta2", optimizer.beta2(), 0, below_one));
  RETURN_IF_ERROR(CheckRange("optimizer.eps", optimizer.eps(), 1e-30, 1));
  RETURN_IF_ERROR(
      CheckRange("optimizer.weight_decay", optimizer.weight_decay(), 0, 100));
  RETURN_IF_ERROR(
      CheckRange("optimizer.clip_norm", optimizer.clip_norm(), 0, 1e30));
  return CheckRange("optimizer.ema_decay", optimizer.ema_decay(), 0, below_one);
}

absl::Status CheckShapes(const Data& data) {
  RETURN_IF_ERROR(CheckRange("data.shapes.grids", data.shapes().grids(), 0,
                             kMaxMosaicGrids));
  const bool mosaics = data.shapes().grids() > 0;
  RETURN_IF_ERROR(CheckRange("data.shapes.resolution",
                             data.shapes().resolution(), mosaics ? 2 : 0,
                             mosaics ? kMaxMosaicResolution : 0));
  if (data.resolution() == 0 && !data.has_channels()) return absl::OkStatus();
  return InvalidArgument(
      "data.{}: found with data.shapes, expected of pictures only",
      data.has_channels() ? "channels" : "resolution");
}

absl::Status CheckAgrees(std::string_view field, uint64_t found,
                         int64_t expected) {
  if (found == 0 || found == static_cast<uint64_t>(expected)) {
    return absl::OkStatus();
  }
  return InvalidArgument("data.{}: found {}, expected {}, as the latents have",
                         field, found, expected);
}

// Of latents that are pictures.
absl::Status FillPictures(const LatentFormat& format, Data& data) {
  if (format.height != format.width) {
    return InvalidArgument(
        "data.latents.path: found latents {}x{}, expected "
        "square ones",
        format.height, format.width);
  }
  RETURN_IF_ERROR(CheckAgrees("latents.tokens", data.latents().tokens(), 0));
  RETURN_IF_ERROR(CheckAgrees("channels", data.channels(), format.channels));
  RETURN_IF_ERROR(CheckAgrees("resolution", data.resolution(), format.width));
  data.set_channels(static_cast<uint32_t>(format.channels));
  data.set_resolution(static_cast<uint32_t>(format.width));
  return absl::OkStatus();
}

// Of latents that are sets of tokens.
absl::Status FillSets(const LatentFormat& format, Data& data) {
  Latents& latents = *data.mutable_latents();
  RETURN_IF_ERROR(
      CheckAgrees("latents.tokens", latents.tokens(), format.channels));
  RETURN_IF_ERROR(CheckAgrees("latents.token_channels",
                              latents.token_channels(), format.height));
  if (data.resolution() != 0 || data.has_channels()) {
    return InvalidArgument(
        "data.{}: found with latents that are sets of tokens, expected of "
        "pictures only",
        data.has_channels() ? "channels" : "resolution");
  }
  latents.set_tokens(static_cast<uint32_t>(format.channels));
  latents.set_token_channels(static_cast<uint32_t>(format.height));
  return absl::OkStatus();
}

// What the latents say of themselves.
absl::Status FillLatents(Data& data) {
  const auto cache = ReadLatentCache(data.latents().path());
  RETURN_IF_ERROR(WithContext(cache.status(), "data.latents.path"));
  RETURN_IF_ERROR(cache->of_sets ? FillSets(cache->format, data)
                                 : FillPictures(cache->format, data));
  const LatentFormat& format = cache->format;
  Latents& latents = *data.mutable_latents();
  if (latents.autoencoder().empty()) {
    latents.set_autoencoder(cache->autoencoder);
  }
  if (!latents.has_scaling_factor()) latents.set_scaling_factor(format.scale);
  if (!latents.has_shift_factor()) latents.set_shift_factor(format.shift);
  RETURN_IF_ERROR(CheckRange("data.latents.scaling_factor",
                             latents.scaling_factor(), 1e-6, 1e6));
  return CheckRange("data.latents.shift_factor", latents.shift_factor(), -1e6,
                    1e6);
}

absl::Status FillData(Data& data) {
  if (data.source_case() == Data::SOURCE_NOT_SET) {
    return InvalidArgument(
        "data: found no source, expected one of idx, image_folder, webdataset, "
        "shapes, latents");
  }
  if (!data.has_decode_threads()) data.set_decode_threads(1);
  RETURN_IF_ERROR(
      CheckRange("data.decode_threads", data.decode_threads(), 1, 256));
  if (data.has_shapes()) return CheckShapes(data);
  if (data.has_latents()) return FillLatents(data);
  if (data.has_idx()) {
    if (data.idx().split().empty()) data.mutable_idx()->set_split("train");
    if (data.idx().split() != "train" && data.idx().split() != "test") {
      return InvalidArgument(
          "data.idx.split: found '{}', expected 'train' or 'test'",
          data.idx().split());
    }
  }
  if (data.has_webdataset()) {
    RETURN_IF_ERROR(CheckWhole("data.webdataset.classes",
                               data.webdataset().classes(), 0,
                               kMaxWebDatasetClasses));
  }
  if (!data.has_channels()) data.set_channels(data.has_idx() ? 1 : 3);
  if (data.channels() != 1 && data.channels() != 3) {
    return InvalidArgument("data.channels: found {}, expected 1 or 3",
                           data.channels());
  }
  return CheckRange("data.resolution", data.resolution(), 1, 8192);
}

absl::Status FillSample(SampleConfig& sample, bool of_diffusion) {
  if (sample.solver() == SampleConfig::SOLVER_UNSPECIFIED) {
    sample.set_solver(of_diffusion ? SampleConfig::DDIM : SampleConfig::EULER);
  }
  if (!sample.has_steps()) sample.set_steps(25);
  if (!sample.has_guidance()) sample.set_guidance(2);
  if (!sample.has_per_class()) sample.set_per_class(8);
  if (!sample.has_at_end()) sample.set_at_end(true);
  RETURN_IF_ERROR(CheckRange("sample.steps", sample.steps(), 1, 10000));
  RETURN_IF_ERROR(CheckRange("sample.guidance", sample.guidance(), -100, 100));
  if (!sample.has_every()) sample.set_every(0);
  RETURN_IF_ERROR(CheckRange("sample.every", sample.every(), 0, 1e9));
  return CheckRange("sample.per_class", sample.per_class(), 1, 1000);
}

absl::Status FillHealth(HealthConfig& health) {
  if (health.on_bad_loss() == HealthConfig::POLICY_UNSPECIFIED) {
    health.set_on_bad_loss(HealthConfig::STOP);
  }
  if (!health.has_spike_factor()) health.set_spike_factor(0);
  if (!health.has_replica_hash_every()) health.set_replica_hash_every(0);
  if (health.spike_factor() != 0 && !(health.spike_factor() > 1)) {
    return InvalidArgument(
        "health.spike_factor: found {}, expected 0 (no loss is a spike) or "
        "more than 1",
        health.spike_factor());
  }
  return CheckRange("health.replica_hash_every", health.replica_hash_every(), 0,
                    1e9);
}

absl::Status CheckValidation(const ValidationConfig& validation,
                             const Data& data) {
  if (data.held_out() == 0 && data.idx().split() != "train") {
    return InvalidArgument(
        "validation: found with data.held_out: 0, expected samples that are "
        "held out");
  }
  return CheckRange("validation.every", validation.every(), 1, 1e9);
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

absl::Status FillLossScaling(LossScaling& scaling) {
  const LossScalerOptions defaults;
  if (!scaling.has_initial()) scaling.set_initial(defaults.initial);
  if (!scaling.has_growth_interval()) {
    scaling.set_growth_interval(defaults.growth_interval);
  }
  if (!scaling.has_hysteresis()) scaling.set_hysteresis(defaults.hysteresis);
  if (!scaling.has_minimum()) scaling.set_minimum(defaults.minimum);
  RETURN_IF_ERROR(
      CheckRange("loss_scaling.minimum", scaling.minimum(), 1e-30, 1e30));
  RETURN_IF_ERROR(CheckRange("loss_scaling.initial", scaling.initial(),
                             scaling.minimum(), 1e30));
  RETURN_IF_ERROR(CheckRange("loss_scaling.growth_interval",
                             scaling.growth_interval(), 1, 1e9));
  return CheckRange("loss_scaling.hysteresis", scaling.hysteresis(), 1, 1e6);
}

absl::Status FillTrain(TrainConfig& train, const Init& init) {
  const bool all = train.parameters() == TrainConfig::PARAMETERS_UNSPECIFIED ||
                   train.parameters() == TrainConfig::ALL;
  const bool adapters = train.parameters() == TrainConfig::ADAPTERS;
  if (!adapters && (train.has_rank() || train.has_alpha())) {
    return InvalidArgument(
        "train.{}: found, expected it with parameters: ADAPTERS only",
        train.has_rank() ? "rank" : "alpha");
  }
  if (all && train.frozen() != TrainConfig::FROZEN_UNSPECIFIED) {
    return InvalidArgument(
        "train.frozen: found, expected it with parameters: LAYERS or ADAPTERS, "
        "which leave weights that do not train");
  }
  if (all) {
    if (train.layers().empty() && train.except().empty()) {
      return absl::OkStatus();
    }
    return InvalidArgument(
        "train.{}: found, expected it with parameters: LAYERS or ADAPTERS",
        train.layers().empty() ? "except" : "layers");
  }
  if (init.weights().empty()) {
    return InvalidArgument(
        "train.parameters: found {} without init.weights, expected the weights "
        "of what does not train",
        TrainConfig::Parameters_Name(train.parameters()));
  }
  if (train.layers().empty()) {
    if (!adapters) {
      return InvalidArgument(
          "train.layers: found none, expected the layers that train");
    }
    train.add_layers("blocks.*");
    if (train.except().empty()) train.add_except("*.modulation");
  }
  if (train.frozen() == TrainConfig::FROZEN_UNSPECIFIED) {
    train.set_frozen(TrainConfig::FULL);
  }
  if (!adapters) return absl::OkStatus();
  if (!train.has_rank()) train.set_rank(16);
  RETURN_IF_ERROR(CheckRange("train.rank", train.rank(), 1, 4096));
  if (!train.has_alpha()) train.set_alpha(train.rank());
  return CheckRange("train.alpha", train.alpha(), 1e-6, 1e6);
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
  trained.frozen = FormatOf(train.frozen());
  return trained;
}

// The name is a folder's and comes into logs and terminals.
absl::Status CheckName(const std::string& name) {
  constexpr size_t kMostBytes = 200;
  const bool plain = std::none_of(
      name.begin(), name.end(),
      [](unsigned char c) { return c < 0x20 || c == 0x7f || c == '/'; });
  if (plain && name != "." && name != ".." && name.size() <= kMostBytes) {
    return absl::OkStatus();
  }
  return InvalidArgument(
      "name: found '{}', expected the name of a folder: at most {} bytes, no "
      "'/' and no control characters",
      absl::Utf8SafeCEscape(name.substr(0, kMostBytes)), kMostBytes);
}

}  // namespace

absl::Status FillJobDefaults(Job& job) {
  RETURN_IF_ERROR(CheckName(job.name()));
  if (job.model().family_case() == Model::FAMILY_NOT_SET) {
    return InvalidArgument(
        "model: found no family, expected dit, mmdit, hidream, triposg or "
        "shape_vae");
  }
  job.mutable_objective();
  RETURN_IF_ERROR(FillData(*job.mutable_data()));
  RETURN_IF_ERROR(CheckRange("global_batch", job.global_batch(), 1, 1 << 24));
  RETURN_IF_ERROR(CheckRange("steps", job.steps(), 1, 1e9));
  RETURN_IF_ERROR(FillOptimizer(*job.mutable_optimizer()));
  if (job.precision() == Job::PRECISION_UNSPECIFIED) {
    job.set_precision(Job::BF16);
  }
  if (job.precision() == Job::FP16) {
    RETURN_IF_ERROR(FillLossScaling(*job.mutable_loss_scaling()));
  } else if (job.has_loss_scaling()) {
    return InvalidArgument(
        "loss_scaling: found with precision {}, expected it with FP16 only",
        Job::Precision_Name(job.precision()));
  }
  if (!job.checkpoint().has_every()) job.mutable_checkpoint()->set_every(0);
  if (!job.checkpoint().has_every_minutes())
    job.mutable_checkpoint()->set_every_minutes(30);
  if (!job.checkpoint().has_keep()) job.mutable_checkpoint()->set_keep(2);
  if (!job.log().has_every()) job.mutable_log()->set_every(10);
  RETURN_IF_ERROR(CheckRange("log.every", job.log().every(), 1, 1e9));
  if (job.has_memory_limit_bytes()) {
    RETURN_IF_ERROR(CheckWhole("memory_limit_bytes", job.memory_limit_bytes(),
                               1, kMaxMemoryLimit));
  }
  if (!job.has_communication_deadline_s()) {
    job.set_communication_deadline_s(600);
  }
  RETURN_IF_ERROR(CheckRange("communication_deadline_s",
                             job.communication_deadline_s(), 1, 1e6));
  RETURN_IF_ERROR(FillHealth(*job.mutable_health()));
  if (job.has_train()) {
    RETURN_IF_ERROR(FillTrain(*job.mutable_train(), job.init()));
  }
  if (job.has_validation()) {
    RETURN_IF_ERROR(CheckValidation(job.validation(), job.data()));
  }
  return FillSample(*job.mutable_sample(), job.objective().has_diffusion());
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

LatentFormat LatentFormatOf(const Data& data) {
  if (!data.has_latents()) return {};
  const Latents& latents = data.latents();
  if (latents.tokens() > 0) {
    return {.channels = latents.tokens(),
            .height = latents.token_channels(),
            .width = 1,
            .scale = latents.scaling_factor(),
            .shift = latents.shift_factor()};
  }
  return {.channels = data.channels(),
          .height = data.resolution(),
          .width = data.resolution(),
          .scale = data.latents().scaling_factor(),
          .shift = data.latents().shift_factor()};
}

DataFormat DataFormatOf(const Data& data, int64_t classes) {
  DataFormat format;
  format.channels = data.channels();
  format.resolution = data.resolution();
  format.classes = classes;
  format.tokens = data.latents().tokens();
  format.token_channels = data.latents().token_channels();
  format.surfaces = data.has_shapes() && data.shapes().grids() == 0;
  if (data.has_shapes() && !format.surfaces) {
    const int64_t k = data.shapes().resolution();
    format.tokens = data.shapes().grids();
    format.token_channels = 4 + k * k * k;
  }
  return format;
}

absl::StatusOr<TrainingSetup> ResolveJob(Job& job, const DataSummary& data) {
  TrainingSetup setup;
  ASSIGN_OR_RETURN(setup.family,
                   ResolveModel(*job.mutable_model(),
                                DataFormatOf(job.data(), data.classes)));
  if (setup.family->reconstructs() &&
      !DataFormatOf(job.data(), data.classes).surfaces) {
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
  RETURN_IF_ERROR(CheckActivations(*setup.family, job.global_batch()));
  RETURN_IF_ERROR(CheckPrompts("sample.prompts", job.sample().prompts_size(),
                               *setup.family));
  ASSIGN_OR_RETURN(
      const ResolvedObjective objective,
      ResolveObjective(*job.mutable_objective(), setup.family->samples(),
                       job.seed(), job.global_batch(),
                       setup.family->Shape().tokens));
  setup.objective = objective.training;
  setup.sampling_shift = objective.sampling_shift;
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
  setup.seed = job.seed();
  setup.global_batch = job.global_batch();
  setup.trained = TrainedOf(job.train());
  RETURN_IF_ERROR(CheckTrained(*setup.family, setup.trained));
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
          .costs = std::move(costs)};
}

}  // namespace trireme
