#include "models/dit/dit_names.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "models/transformer/embeddings.h"
#include "nlohmann/json.hpp"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

constexpr char kArguments[] = R"({
  "num_attention_heads": 16, "attention_head_dim": 72, "in_channels": 4,
  "out_channels": null, "num_layers": 28, "dropout": 0.0,
  "norm_num_groups": 32, "attention_bias": true, "sample_size": 32,
  "patch_size": 2, "activation_fn": "gelu-approximate",
  "num_embeds_ada_norm": 1000, "upcast_attention": false,
  "norm_type": "ada_norm_zero", "norm_elementwise_affine": false,
  "norm_eps": 1e-5})";

// Sizes that are null where they are left out are none here.
constexpr char kFormerArguments[] = R"({
  "num_attention_heads": 16, "attention_head_dim": 88, "in_channels": 0,
  "out_channels": null, "num_layers": 1, "dropout": 0.0,
  "norm_num_groups": 32, "cross_attention_dim": null, "attention_bias": false,
  "sample_size": 0, "num_vector_embeds": null, "patch_size": 0,
  "activation_fn": "geglu", "num_embeds_ada_norm": 0,
  "use_linear_projection": false, "only_cross_attention": false,
  "double_self_attention": false, "upcast_attention": false,
  "norm_type": "layer_norm", "norm_elementwise_affine": true,
  "norm_eps": 1e-5, "attention_type": "default", "caption_channels": null,
  "interpolation_scale": null, "use_additional_conditions": null})";

int64_t Number(const Json& arguments, const char* name) {
  return arguments.at(name).get<int64_t>();
}

DescribedModel Read(const Json& arguments) {
  const int64_t heads = Number(arguments, "num_attention_heads");
  const int64_t hidden = heads * Number(arguments, "attention_head_dim");
  const int64_t channels = Number(arguments, "in_channels");
  const Json& out = arguments.at("out_channels");
  DescribedModel described;
  Dit& dit = *described.model.mutable_dit();
  dit.set_hidden(static_cast<uint32_t>(
      std::min<int64_t>(hidden, std::numeric_limits<uint32_t>::max())));
  dit.set_heads(heads);
  dit.set_layers(Number(arguments, "num_layers"));
  dit.set_patch(Number(arguments, "patch_size"));
  dit.set_qk_norm(false);
  dit.set_positions(Dit::SINCOS);
  dit.set_conditioning(Dit::PER_BLOCK);
  dit.set_learned_variance(out.is_number() &&
                           out.get<int64_t>() == 2 * channels);
  dit.set_classes(Number(arguments, "num_embeds_ada_norm"));
  described.data = {.channels = channels,
                    .resolution = Number(arguments, "sample_size"),
                    .classes = dit.classes()};
  return described;
}

constexpr ModelClass kClasses[] = {
    {"DiTTransformer2DModel", kArguments, &Read},
    {"Transformer2DModel", kFormerArguments, &Read}};

Json ArgumentsOf(const DitConfig& config) {
  Json json = Json::parse(kArguments);
  json.update({{"num_attention_heads", config.heads},
               {"attention_head_dim", config.head_dim()},
               {"in_channels", config.image.channels},
               {"out_channels",
                (config.learned_variance ? 2 : 1) * config.image.channels},
               {"num_layers", config.layers},
               {"sample_size", config.position_base > 0
                                   ? config.position_base * config.patch
                                   : config.image.height},
               {"patch_size", config.patch},
               {"num_embeds_ada_norm", config.classes}});
  return json;
}

class Names {
 public:
  explicit Names(const DitConfig& config)
      : config_(config),
        h_(config.hidden),
        table_(std::string(kClasses[0].name), ArgumentsOf(config).dump(),
               std::string(kClasses[0].arguments)) {
    for (const ModelClass& former : std::span(kClasses).subspan(1)) {
      table_.AddClassName(std::string(former.name),
                          std::string(former.arguments));
    }
  }

  NameTable Make() && {
    const int64_t p = config_.patch, c = config_.image.channels;
    // A patch's channels come first there.
    table_.AddPermuted({"patch_embedding.weight", {h_, p * p * c}},
                       {h_, p, p, c}, {0, 3, 1, 2},
                       {"pos_embed.proj.weight", {h_, c, p, p}});
    table_.Add({"patch_embedding.bias", {h_}}, {"pos_embed.proj.bias", {h_}});
    for (int64_t i = 0; i < config_.layers; ++i) Block(i);
    Modulation("final.modulation", "proj_out_1", 2);
    Linear("final.linear", "proj_out_2", h_, config_.predicted_channels());
    table_.CheckComplete();
    return std::move(table_);
  }

 private:
  void Linear(const std::string& ours, const std::string& theirs, int64_t in,
              int64_t out) {
    table_.Add({ours + ".weight", {out, in}}, {theirs + ".weight", {out, in}});
    table_.Add({ours + ".bias", {out}}, {theirs + ".bias", {out}});
  }

  // `parts` matrices in one, in the same order.
  void Modulation(const std::string& ours, const std::string& theirs,
                  int64_t parts) {
    table_.Add({ours + ".weight", {parts, h_, h_}},
               {theirs + ".weight", {parts * h_, h_}});
    table_.Add({ours + ".bias", {parts, h_}}, {theirs + ".bias", {parts * h_}});
  }

  void Qkv(const std::string& ours, const std::string& theirs) {
    std::vector<NamedShape> weights;
    std::vector<NamedShape> biases;
    for (const char* part : {".to_q", ".to_k", ".to_v"}) {
      weights.push_back({theirs + part + ".weight", {h_, h_}});
      biases.push_back({theirs + part + ".bias", {h_}});
    }
    table_.AddSplit({ours + ".weight", {3, h_, h_}}, weights);
    table_.AddSplit({ours + ".bias", {3, h_}}, biases);
  }

  void Block(int64_t i) {
    const std::string ours = fmt::format("blocks.{}.", i);
    const std::string theirs = fmt::format("transformer_blocks.{}.", i);
    // The first block's is the head's, too, and lies with the embedding.
    const std::string conditioner = i == 0 ? "" : ours;
    const std::string embedders = theirs + "norm1.emb.";
    Linear(conditioner + "time_embedding.in",
           embedders + "timestep_embedder.linear_1", kScalarChannels, h_);
    Linear(conditioner + "time_embedding.out",
           embedders + "timestep_embedder.linear_2", h_, h_);
    const Shape rows = {config_.classes + 1, h_};
    table_.Add({conditioner + "class_embedding.table", rows},
               {embedders + "class_embedder.embedding_table.weight", rows});
    Modulation(ours + "modulation", theirs + "norm1.linear", 6);
    Qkv(ours + "attention.qkv", theirs + "attn1");
    Linear(ours + "attention.out", theirs + "attn1.to_out.0", h_, h_);
    Linear(ours + "mlp.in", theirs + "ff.net.0.proj", h_, config_.mlp_hidden);
    Linear(ours + "mlp.out", theirs + "ff.net.2", config_.mlp_hidden, h_);
  }

  const DitConfig& config_;
  int64_t h_;
  NameTable table_;
};

}  // namespace

std::span<const ModelClass> DitClasses() { return kClasses; }

absl::StatusOr<NameTable> DitNames(const DitConfig& config) {
  const auto other = [](std::string_view field, auto found,
                        std::string_view expected) {
    return FailedPrecondition(
        "model.dit.{}: found {}, expected {}: DiTTransformer2DModel of "
        "diffusers has no other",
        field, found, expected);
  };
  if (config.of_sets()) {
    return FailedPrecondition(
        "model.dit: found sets of tokens, expected pictures for a class of "
        "diffusers");
  }
  if (!config.conditions_per_block) {
    return other("conditioning", "SHARED", "PER_BLOCK");
  }
  if (config.positions != Dit::SINCOS) {
    return other("positions", Dit::Positions_Name(config.positions), "SINCOS");
  }
  if (config.qk_norm) return other("qk_norm", true, "false");
  if (config.mlp_hidden != 4 * config.hidden) {
    return other("mlp_ratio",
                 static_cast<double>(config.mlp_hidden) /
                     static_cast<double>(config.hidden),
                 "4");
  }
  if (config.classes == 0) return other("classes", 0, "one or more");
  if (config.text_tokens > 0) {
    return other("text.tokens", config.text_tokens, "no text");
  }
  if (config.moe.has_value()) {
    return other("moe.experts", config.moe->experts, "none");
  }
  return Names(config).Make();
}

}  // namespace trireme
