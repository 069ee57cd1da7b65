#include "tests/parity/tiny_job.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <numeric>
#include <span>
#include <utility>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "google/protobuf/text_format.h"
#include "models/dit/dit_family.h"
#include "models/hidream/hidream_family.h"
#include "models/mesh_tokens/mesh_decoder_family.h"
#include "models/mmdit/mmdit_family.h"
#include "models/objective/classification.h"
#include "models/objective/next_token.h"
#include "models/objective/reconstruction.h"
#include "models/shape_vae/shape_vae_family.h"
#include "models/sparse_dit/sparse_dit_family.h"
#include "models/sparse_vae/sparse_vae_family.h"
#include "models/swin/swin_family.h"
#include "models/triposg/triposg_family.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/core/voxel_order.h"
#include "runtime/device/cpu_device.h"
#include "scheduler/plan/plan.h"

namespace trireme {
namespace {

constexpr int64_t kSteps = 3;

constexpr int64_t kTextTokens = 5;
constexpr int64_t kTextWidth = 6;
constexpr int64_t kPooledWidth = 3;
constexpr int64_t kLayerTokens = 3;
constexpr int64_t kChannels = 2;
constexpr int64_t kWidth = 8;
constexpr int64_t kSetChannels = 6;
constexpr int64_t kPictureSide = 4;
constexpr int64_t kSwinClasses = 10;
constexpr double kLabelSmoothing = 0.1;
constexpr int64_t kGridSide = 16;
// More than a block of cells, and no even number of them. Cells of twice the
// side lie in several windows, as do those of four times it where windows are
// shifted.
constexpr int32_t kVoxelSide = 17;
constexpr int64_t kMostVoxels = 198;

int64_t WorldSizeOf(const GridCase& grid) {
  const auto& stage_ranks = grid.plan.skip().stage_ranks();
  if (!stage_ranks.empty()) {
    return std::accumulate(stage_ranks.begin(), stage_ranks.end(), int64_t{0});
  }
  return grid.ranks();
}

std::shared_ptr<const ModelFamily> MmditOf(const GridCase& grid) {
  MmditConfig config;
  config.hidden = 4 * grid.heads;
  config.dual_layers = grid.layers - grid.single_layers;
  config.single_layers = grid.single_layers;
  config.heads = grid.heads;
  config.mlp_hidden = 8 * grid.heads;
  config.positions = grid.positions == Dit::ROPE ? Mmdit::ROPE : Mmdit::SINCOS;
  config.rope_axes = {0, 2, 2};
  if (grid.views > 1) config.rope_axes = {2, 0, 2};
  config.position_table = 6;
  config.position_base = 3;
  config.qk_norm = grid.qk_norm;
  config.text_tokens = kTextTokens;
  config.text_width = kTextWidth;
  config.pooled_width = kPooledWidth;
  config.guidance = 2.5;
  config.image_attention_layers = grid.image_attention_layers;
  if (grid.moe.has_value()) config.experts = {.moe = *grid.moe};
  config.channels = kChannels;
  config.views = grid.views;
  config.view_streams = grid.view_streams;
  config.height = grid.height / grid.views;
  config.width = kWidth;
  if (grid.token_set) {
    config.set_tokens = config.tokens();
    config.channels = kSetChannels;
  }
  return MakeMmditFamily(config);
}

std::shared_ptr<const ModelFamily> DitOf(const GridCase& grid) {
  DitConfig config;
  config.hidden = 4 * grid.heads;
  config.layers = grid.layers;
  config.heads = grid.heads;
  config.mlp_hidden = 8 * grid.heads;
  config.positions = grid.positions;
  config.qk_norm = grid.qk_norm;
  config.classes = 10;
  config.conditions_per_block = grid.conditions_per_block;
  config.learned_variance =
      grid.diffusion.has_value() && grid.diffusion->schedule.learned_variance;
  config.moe = grid.moe;
  config.image = {
      .channels = kChannels, .height = grid.height, .width = kWidth};
  if (grid.token_set) {
    const int64_t side = grid.lattice;
    config.set = {.tokens = side > 0 ? side * side * side : config.tokens(),
                  .channels = kSetChannels,
                  .lattice = side};
    config.positions = side > 0 ? Dit::SINCOS : Dit::NONE;
  }
  if (grid.text != Text::kNone) {
    config.text_tokens = kTextTokens;
    config.text_width = kTextWidth;
    config.text_attention = grid.text == Text::kCross ? Dit::CROSS : Dit::JOINT;
  }
  return MakeDitFamily(config);
}

// Blocks read three layers of a language model, the last one's twice.
std::shared_ptr<const ModelFamily> HidreamOf(const GridCase& grid) {
  HidreamConfig config;
  config.hidden = 4 * grid.heads;
  config.dual_layers = grid.layers - grid.single_layers;
  config.single_layers = grid.single_layers;
  config.heads = grid.heads;
  config.rope_axes = {0, 2, 2};
  config.mlp_hidden = 8 * grid.heads;
  config.moe = *grid.moe;
  config.text_tokens = kTextTokens;
  config.text_width = kTextWidth;
  config.pooled_width = kPooledWidth;
  config.text_layers = 3;
  config.layer_tokens = kLayerTokens;
  config.layer_width = kTextWidth;
  for (int64_t i = 0; i < grid.layers; ++i) {
    config.block_text_layers.push_back(
        static_cast<int32_t>(std::min<int64_t>(i, config.text_layers - 1)));
  }
  config.channels = kChannels;
  config.height = grid.height;
  config.width = kWidth;
  return MakeHidreamFamily(config);
}

CrossCondition ConditionOf(CrossCondition::Kind kind) {
  CrossCondition condition;
  condition.kind = kind;
  if (kind == CrossCondition::Kind::kClass) condition.classes = 10;
  condition.feature_tokens = kTextTokens;
  condition.feature_width = kTextWidth;
  condition.picture_side = kPictureSide;
  condition.patch = 2;
  return condition;
}

std::shared_ptr<const ModelFamily> TriposgOf(const GridCase& grid) {
  TriposgConfig config;
  config.hidden = 4 * grid.heads;
  config.layers = grid.layers;
  config.heads = grid.heads;
  config.latents = grid.height / 2 * kWidth / 2;
  config.channels = kSetChannels;
  config.condition = ConditionOf(*grid.triposg);
  config.moe = grid.moe;
  config.expert_blocks = 2;
  return MakeTriposgFamily(config);
}

std::shared_ptr<const ModelFamily> SparseDitOf(const GridCase& grid) {
  SparseDitConfig config;
  config.hidden = 4 * grid.heads;
  config.layers = grid.layers;
  config.heads = grid.heads;
  config.key_heads = grid.heads / 2;
  config.top_k = 3;
  config.tokens = 3 * grid.height;
  config.channels = kSetChannels;
  config.resolution = kGridSide;
  config.condition = ConditionOf(*grid.sparse_dit);
  return MakeSparseDitFamily(config);
}

// Unlike cells of a grid, of unlike numbers.
void AddVoxels(const TrainingSetup& setup, Device& device, Batch& batch) {
  const int64_t tokens = setup.family->samples().shape.dim(0);
  const int64_t count = batch.size();
  std::vector<int32_t> voxels, counts;
  for (const uint64_t sample : batch.samples) {
    const RandomStream random({.seed = 99, .sample = sample});
    const auto real = static_cast<int64_t>(random.Bits(700000) % (tokens + 1));
    // An odd step takes every cell once.
    const uint64_t first = random.Bits(700001);
    const uint64_t step = random.Bits(700002) | 1;
    for (int64_t i = 0; i < tokens; ++i) {
      const uint64_t cell = first + static_cast<uint64_t>(i) * step;
      for (const int shift : {0, 4, 8}) {
        voxels.push_back(
            i < real ? static_cast<int32_t>((cell >> shift) % kGridSide) : -1);
      }
    }
    counts.push_back(static_cast<int32_t>(real));
  }
  batch.fields[kVoxelsField].values =
      Tensor::FromValues<int32_t>(device, {count, tokens, 3}, voxels);
  batch.fields[kVoxelCountField].values =
      Tensor::FromValues<int32_t>(device, {count}, counts);
}

std::shared_ptr<const ModelFamily> ShapeVaeOf(const GridCase& grid) {
  ShapeVaeConfig config;
  config.latents = grid.height / 2 * kWidth / 2;
  config.channels = kSetChannels;
  config.encoder_hidden = 2 * grid.heads;
  config.decoder_hidden = 4 * grid.heads;
  config.encoder_layers = grid.layers / 2;
  config.decoder_layers = grid.layers - config.encoder_layers;
  config.heads = grid.heads;
  config.frequencies = 2;
  config.points = config.latents + 3;
  config.queries = 10;
  // Values are random: of steps that are far, so that gradients are not steep.
  config.losses = {.truncation = 0.5,
                   .normal = 0.5,
                   .eikonal = 0.125,
                   .difference_step = 0.1,
                   .divergence = 0.25};
  return MakeShapeVaeFamily(config);
}

std::shared_ptr<const ModelFamily> SparseVaeOf(const GridCase& grid) {
  SparseVaeConfig config;
  config.hidden = 4 * grid.heads;
  config.levels = grid.layers < 8 ? 1 : 2;
  config.channels = 3;
  config.encoder_layers = grid.layers / 2 - config.levels;
  config.decoder_layers = config.encoder_layers;
  config.heads = grid.heads;
  config.divergence = 0.25;
  config.resolution = kVoxelSide;
  config.voxel_channels = 2;
  config.limit = 2;
  config.tokens = {kMostVoxels};
  for (int64_t level = 1; level <= config.levels; ++level) {
    const int64_t side = config.resolution_of(level);
    config.tokens.push_back(std::min(config.tokens.back(), side * side * side));
  }
  return MakeSparseVaeFamily(config);
}

// Some of a grid's cells in their order, of each sample others.
void AddCells(Device& device, Batch& batch) {
  const int64_t count = batch.size();
  std::vector<int32_t> voxels, counts, kinds;
  for (const uint64_t sample : batch.samples) {
    const RandomStream random({.seed = 99, .sample = sample});
    // Of cubes of 2³ cells, most of which are there.
    const double share = 0.02 + 0.05 * random.Uniform(700000);
    std::vector<std::pair<int64_t, std::array<int32_t, 3>>> cells;
    for (int32_t cell = 0; cell < kVoxelSide * kVoxelSide * kVoxelSide;
         ++cell) {
      const std::array<int32_t, 3> at = {cell % kVoxelSide,
                                         cell / kVoxelSide % kVoxelSide,
                                         cell / (kVoxelSide * kVoxelSide)};
      const int32_t cube =
          (at[2] / 2 * kVoxelSide + at[1] / 2) * kVoxelSide + at[0] / 2;
      if (random.Uniform(700001 + cube) > share ||
          random.Uniform(710001 + cell) > 0.6) {
        continue;
      }
      cells.emplace_back(VoxelRank(at[0], at[1], at[2], kVoxelSide), at);
    }
    std::sort(cells.begin(), cells.end());
    cells.resize(std::min<size_t>(cells.size(), kMostVoxels));
    for (const auto& [rank, at] : cells) {
      voxels.insert(voxels.end(), at.begin(), at.end());
    }
    voxels.resize(voxels.size() + 3 * (kMostVoxels - cells.size()), -1);
    counts.push_back(static_cast<int32_t>(cells.size()));
    for (size_t i = 0; i < cells.size(); ++i) {
      kinds.push_back(static_cast<int32_t>(random.Bits(800000 + i) % 3));
    }
    kinds.resize(kMostVoxels * counts.size(), -1);
  }
  batch.fields[kVoxelsField].values =
      Tensor::FromValues<int32_t>(device, {count, kMostVoxels, 3}, voxels);
  batch.fields[kVoxelKindsField].values =
      Tensor::FromValues<int32_t>(device, {count, kMostVoxels}, kinds);
  batch.fields[kVoxelCountField].values =
      Tensor::FromValues<int32_t>(device, {count}, counts);
}

std::shared_ptr<const ModelFamily> MeshTokensOf(const GridCase& grid) {
  MeshDecoderConfig config;
  config.hidden = 4 * grid.heads;
  config.layers = grid.layers;
  config.heads = grid.heads;
  config.tokens = grid.height / 2 * kWidth / 2;
  config.format = {.bits = 2, .block_bits = 1};
  config.classes = 10;
  return MakeMeshDecoderFamily(config);
}

std::shared_ptr<const ModelFamily> SwinOf(const GridCase& grid) {
  SwinConfig config;
  const int64_t blocks = grid.layers / 2;
  config.stages = {{blocks, grid.heads}, {grid.layers - blocks, grid.heads}};
  config.patch = 2;
  config.hidden = 4 * grid.heads;
  config.mlp_hidden = 8 * grid.heads;
  config.moe = grid.moe;
  config.expert_stages = 2;
  config.drop_path = grid.drop_path;
  config.window = 2;
  config.channels = kChannels;
  config.side = kWidth;
  config.classes = kSwinClasses;
  return MakeSwinFamily(config);
}

// Sequences of unlike lengths, so that means over a replica's tokens are others
// than those over all.
void AddSequences(const TrainingSetup& setup, Device& device, Batch& batch) {
  const FieldSpec spec = setup.family->samples();
  const TokenGrammar& grammar = *setup.family->grammar();
  const int64_t tokens = spec.shape.dim(0), count = batch.size();
  std::vector<int32_t> sequences, next_tokens, lengths;
  for (const uint64_t sample : batch.samples) {
    const RandomStream random({.seed = 99, .sample = sample});
    const auto length = static_cast<int64_t>(1 + random.Bits(600000) % tokens);
    for (int64_t i = 0; i < tokens; ++i) {
      const auto token =
          static_cast<int32_t>(random.Bits(i) % grammar.vocabulary());
      sequences.push_back(i < length ? token : grammar.end());
      next_tokens.push_back(i < length ? token : -1);
    }
    lengths.push_back(static_cast<int32_t>(length));
  }
  batch.fields[kSequenceField].values =
      Tensor::FromValues<int32_t>(device, {count, tokens}, sequences);
  batch.fields[kNextTokensField].values =
      Tensor::FromValues<int32_t>(device, {count, tokens}, next_tokens);
  batch.fields[kSequenceLengthField].values =
      Tensor::FromValues<int32_t>(device, {count}, lengths);
}

std::shared_ptr<const ModelFamily> FamilyOf(const GridCase& grid) {
  if (grid.hidream) return HidreamOf(grid);
  if (grid.triposg.has_value()) return TriposgOf(grid);
  if (grid.sparse_dit.has_value()) return SparseDitOf(grid);
  if (grid.shape_vae) return ShapeVaeOf(grid);
  if (grid.mesh_tokens) return MeshTokensOf(grid);
  if (grid.swin) return SwinOf(grid);
  if (grid.sparse_vae) return SparseVaeOf(grid);
  return grid.mmdit ? MmditOf(grid) : DitOf(grid);
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

BatchSource RandomBatches(const TrainingSetup& setup) {
  return [setup](Device& device, int64_t step, int64_t first,
                 int64_t count) -> absl::StatusOr<Batch> {
    Batch batch;
    batch.step = step;
    FieldSpec sample_field = setup.family->samples();
    if (!setup.buckets.empty()) {
      // The smaller ones first: what they leave behind is there when the
      // largest comes.
      const auto buckets = static_cast<int64_t>(setup.buckets.size());
      batch.bucket = static_cast<int32_t>(buckets - 1 - (step - 1) % buckets);
      sample_field = setup.buckets[batch.bucket].family->samples();
    }
    const int64_t elements = sample_field.shape.num_elements();
    std::vector<float> pixels(count * elements);
    std::vector<int32_t> labels(count);
    std::vector<FieldSpec> text_fields;
    uint64_t most_text = 0;
    std::optional<FieldSpec> picture;
    int32_t picture_tokens = 0;
    for (const FieldSpec& spec : AllFields(*setup.family)) {
      if (spec.name == kTextField || spec.num_layers > 0) {
        text_fields.push_back(spec);
      }
      if (spec.name == kPixelsField && spec.name != sample_field.name) {
        picture = spec;
      }
      if (spec.name == kPictureCountField) {
        picture_tokens = static_cast<int32_t>(spec.typical);
      }
      if (spec.name == kTextCountField) {
        most_text = static_cast<uint64_t>(spec.typical);
      }
    }
    std::vector<int32_t> text_counts(count);
    std::vector<float> pooled(count * kPooledWidth);
    for (int64_t i = 0; i < count; ++i) {
      const uint64_t sample = (step - 1) * setup.global_batch + first + i;
      batch.samples.push_back(sample);
      const RandomStream random({.seed = 99, .sample = sample});
      random.FillNormal(
          0, std::span<float>(pixels.data() + i * elements, elements));
      random.FillNormal(
          300000,
          std::span<float>(pooled.data() + i * kPooledWidth, kPooledWidth));
      const int64_t classes = setup.family->classifies()
                                  ? kSwinClasses
                                  : setup.family->num_classes();
      if (classes > 0) {
        labels[i] = static_cast<int32_t>(random.Bits(100000) % classes);
      }
      text_counts[i] =
          static_cast<int32_t>(random.Bits(200000) % (most_text + 1));
    }
    if (setup.family->grammar() != nullptr) {
      AddSequences(setup, device, batch);
    } else {
      batch.fields[sample_field.name].values = Tensor::FromValues<float>(
          device, sample_field.ShapeOf(count), pixels);
    }
    if (!sample_field.counted_by.empty()) AddVoxels(setup, device, batch);
    batch.fields[kLabelField].values =
        Tensor::FromValues<int32_t>(device, {count}, labels);
    for (const FieldSpec& spec : AllFields(*setup.family)) {
      if (setup.family->reconstructs() && spec.name == kVoxelsField) {
        AddCells(device, batch);
      }
      if (spec.name != kQueriesField) continue;
      const int64_t of_sample = spec.shape.num_elements();
      std::vector<float> queries(count * of_sample);
      for (int64_t i = 0; i < count; ++i) {
        RandomStream({.seed = 99, .sample = batch.samples[i]})
            .FillNormal(500000, std::span<float>(queries.data() + i * of_sample,
                                                 of_sample));
      }
      batch.fields[kQueriesField].values =
          Tensor::FromValues<float>(device, spec.ShapeOf(count), queries);
    }
    if (picture.has_value()) {
      const int64_t of_sample = picture->shape.num_elements();
      std::vector<float> pictures(count * of_sample);
      for (int64_t i = 0; i < count; ++i) {
        RandomStream({.seed = 99, .sample = batch.samples[i]})
            .FillNormal(
                400000,
                std::span<float>(pictures.data() + i * of_sample, of_sample));
      }
      batch.fields[kPixelsField].values =
          Tensor::FromValues<float>(device, picture->ShapeOf(count), pictures);
      batch.fields[kPictureCountField].values = Tensor::FromValues<int32_t>(
          device, {count}, std::vector<int32_t>(count, picture_tokens));
    }
    if (most_text > 0) {
      for (const FieldSpec& spec : text_fields) {
        std::vector<float> states(spec.ShapeOf(count).num_elements());
        const int64_t of_sample = spec.shape.num_elements();
        for (int64_t i = 0; i < count; ++i) {
          const RandomStream random({.seed = 99, .sample = batch.samples[i]});
          random.FillNormal(
              elements + (spec.num_layers > 0 ? 1000 * (spec.layer + 1) : 0),
              std::span<float>(states.data() + i * of_sample, of_sample));
        }
        batch.fields[spec.name].values =
            Tensor::FromValues<float>(device, spec.ShapeOf(count), states);
      }
      batch.fields[kTextCountField].values =
          Tensor::FromValues<int32_t>(device, {count}, text_counts);
      batch.fields[kPooledTextField].values =
          Tensor::FromValues<float>(device, {count, kPooledWidth}, pooled);
    }
    return batch;
  };
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
  add(ep != 1, fmt::format("ep{}", ep));
  if (moe.has_value()) {
    features.push_back(fmt::format("experts{}of{}", moe->top_k, moe->experts));
    add(moe->kind == MoeConfig::ExpertKind::kGelu, "gelu");
    add(moe->shared_hidden > 0, "shared");
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
  }
  add(plan.has_microbatches(), fmt::format("mb{}", plan.microbatches()));
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
  add(plan.offload().has_nvme(),
      plan.offload().nvme().io() == Plan::Offload::Nvme::THREADS
          ? "drive_threads"
          : "drive");
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
