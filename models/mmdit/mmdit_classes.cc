#include "models/mmdit/mmdit_classes.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "nlohmann/json.hpp"

namespace trireme {
namespace {

using Json = nlohmann::json;

constexpr char kSd3Arguments[] = R"({
  "sample_size": 128, "patch_size": 2, "in_channels": 16, "num_layers": 18,
  "attention_head_dim": 64, "num_attention_heads": 18,
  "joint_attention_dim": 4096, "caption_projection_dim": 1152,
  "pooled_projection_dim": 2048, "out_channels": 16, "pos_embed_max_size": 96,
  "dual_attention_layers": [], "qk_norm": null})";

constexpr char kFluxArguments[] = R"({
  "patch_size": 1, "in_channels": 64, "out_channels": null, "num_layers": 19,
  "num_single_layers": 38, "attention_head_dim": 128,
  "num_attention_heads": 24, "joint_attention_dim": 4096,
  "pooled_projection_dim": 768, "guidance_embeds": false,
  "axes_dims_rope": [16, 56, 56]})";

constexpr char kQkNorm[] = "rms_norm";

// What a config.json does not say: the text that the published models were
// trained with, FLUX.1-dev's guidance, a picture's side in latents.
constexpr uint32_t kSd3TextTokens = 333;
constexpr uint32_t kFluxTextTokens = 512;
constexpr double kFluxGuidance = 3.5;
constexpr int64_t kFluxSide = 128;
// FLUX is given patches of this side as tokens, where their channels allow it.
constexpr int64_t kFluxPatch = 2;

int64_t Number(const Json& arguments, const char* name) {
  return arguments.at(name).get<int64_t>();
}

// What both classes call alike.
Mmdit ReadShared(const Json& arguments) {
  Mmdit mmdit;
  const int64_t heads = Number(arguments, "num_attention_heads");
  const int64_t hidden = heads * Number(arguments, "attention_head_dim");
  mmdit.set_hidden(static_cast<uint32_t>(
      std::min<int64_t>(hidden, std::numeric_limits<uint32_t>::max())));
  mmdit.set_heads(heads);
  mmdit.set_dual_layers(Number(arguments, "num_layers"));
  mmdit.mutable_text()->set_width(Number(arguments, "joint_attention_dim"));
  mmdit.mutable_text()->set_pooled_width(
      Number(arguments, "pooled_projection_dim"));
  return mmdit;
}

DescribedModel ReadSd3(const Json& arguments) {
  Mmdit mmdit = ReadShared(arguments);
  const int64_t patch = Number(arguments, "patch_size");
  const int64_t table = Number(arguments, "pos_embed_max_size");
  const int64_t side = Number(arguments, "sample_size");
  const int64_t base = side / std::max<int64_t>(patch, 1);
  mmdit.set_single_layers(0);
  mmdit.set_patch(patch);
  mmdit.set_positions(Mmdit::SINCOS);
  mmdit.set_position_table(table);
  mmdit.set_position_base(base);
  mmdit.set_qk_norm(!arguments.at("qk_norm").is_null());
  mmdit.set_image_attention_layers(
      arguments.at("dual_attention_layers").size());
  mmdit.mutable_text()->set_tokens(kSd3TextTokens);
  DescribedModel described;
  *described.model.mutable_mmdit() = mmdit;
  described.data = {.channels = Number(arguments, "in_channels"),
                    .resolution = std::min(base, table) * patch};
  return described;
}

DescribedModel ReadFlux(const Json& arguments) {
  Mmdit mmdit = ReadShared(arguments);
  const int64_t channels = Number(arguments, "in_channels");
  const int64_t patch =
      channels % (kFluxPatch * kFluxPatch) == 0 ? kFluxPatch : 1;
  mmdit.set_single_layers(Number(arguments, "num_single_layers"));
  mmdit.set_patch(patch);
  mmdit.set_positions(Mmdit::ROPE);
  for (const Json& axis : arguments.at("axes_dims_rope")) {
    mmdit.add_rope_axes(axis.get<uint32_t>());
  }
  if (arguments.at("guidance_embeds").get<bool>()) {
    mmdit.set_guidance(kFluxGuidance);
  }
  mmdit.mutable_text()->set_tokens(kFluxTextTokens);
  DescribedModel described;
  *described.model.mutable_mmdit() = mmdit;
  described.data = {.channels = channels / (patch * patch),
                    .resolution = kFluxSide};
  return described;
}

constexpr ModelClass kClasses[] = {
    {"SD3Transformer2DModel", kSd3Arguments, &ReadSd3},
    {"FluxTransformer2DModel", kFluxArguments, &ReadFlux}};

}  // namespace

std::span<const ModelClass> MmditClasses() { return kClasses; }

const ModelClass& MmditClassOf(const MmditConfig& config) {
  return kClasses[config.positions == Mmdit::ROPE ? 1 : 0];
}

Json MmditClassArguments(const MmditConfig& config) {
  Json json = {{"num_layers", config.dual_layers},
               {"attention_head_dim", config.head_dim()},
               {"num_attention_heads", config.heads},
               {"joint_attention_dim", config.text_width},
               {"pooled_projection_dim", config.pooled_width}};
  if (config.positions == Mmdit::ROPE) {
    json.update({{"patch_size", 1},
                 {"in_channels", config.patch_channels()},
                 {"out_channels", nullptr},
                 {"num_single_layers", config.single_layers},
                 {"guidance_embeds", config.guidance.has_value()},
                 {"axes_dims_rope", config.rope_axes}});
    return json;
  }
  std::vector<int64_t> dual_attention(config.image_attention_layers);
  std::iota(dual_attention.begin(), dual_attention.end(), 0);
  json.update({{"sample_size", config.position_base * config.patch},
               {"patch_size", config.patch},
               {"in_channels", config.channels},
               {"out_channels", config.channels},
               {"caption_projection_dim", config.hidden},
               {"pos_embed_max_size", config.position_table},
               {"dual_attention_layers", dual_attention},
               {"qk_norm", config.qk_norm ? Json(kQkNorm) : Json()}});
  return json;
}

}  // namespace trireme
