#include "models/hidream/hidream_class.h"

#include <algorithm>
#include <cstdint>
#include <limits>

#include "nlohmann/json.hpp"

namespace trireme {
namespace {

using Json = nlohmann::json;

// The class has no default for patch_size, caption_channels and llama_layers:
// a config.json without them has none of its models.
constexpr char kArguments[] = R"({
  "patch_size": null, "in_channels": 64, "out_channels": null,
  "num_layers": 16, "num_single_layers": 32, "attention_head_dim": 128,
  "num_attention_heads": 20, "caption_channels": [], "text_emb_dim": 2048,
  "num_routed_experts": 4, "num_activated_experts": 2,
  "axes_dims_rope": [32, 32], "max_resolution": [128, 128],
  "llama_layers": [], "force_inference_output": false})";

// What a config.json does not say: the texts that the published models were
// trained with.
constexpr uint32_t kTextTokens = 128;

uint32_t Number(const Json& value) {
  return value.is_number_unsigned()
             ? static_cast<uint32_t>(std::min<uint64_t>(
                   value.get<uint64_t>(), std::numeric_limits<uint32_t>::max()))
             : 0;
}

// Element i of a list, 0 if there is none.
uint32_t NumberAt(const Json& list, size_t i) {
  return i < list.size() ? Number(list[i]) : 0;
}

DescribedModel Read(const Json& arguments) {
  DescribedModel described;
  Hidream& hidream = *described.model.mutable_hidream();
  const uint32_t heads = Number(arguments.at("num_attention_heads"));
  const uint64_t hidden =
      uint64_t{heads} * Number(arguments.at("attention_head_dim"));
  hidream.set_hidden(static_cast<uint32_t>(
      std::min<uint64_t>(hidden, std::numeric_limits<uint32_t>::max())));
  hidream.set_heads(heads);
  hidream.set_dual_layers(Number(arguments.at("num_layers")));
  hidream.set_single_layers(Number(arguments.at("num_single_layers")));
  hidream.set_patch(Number(arguments.at("patch_size")));
  for (const Json& axis : arguments.at("axes_dims_rope")) {
    hidream.add_rope_axes(Number(axis));
  }
  Hidream::Text& text = *hidream.mutable_text();
  text.set_tokens(kTextTokens);
  text.set_layer_tokens(kTextTokens);
  text.set_width(NumberAt(arguments.at("caption_channels"), 0));
  text.set_layer_width(NumberAt(arguments.at("caption_channels"), 1));
  text.set_pooled_width(Number(arguments.at("text_emb_dim")));
  uint32_t layers = 0;
  for (const Json& layer : arguments.at("llama_layers")) {
    hidream.add_block_text_layers(Number(layer));
    layers = std::max(layers, Number(layer) + 1);
  }
  text.set_layers(layers);
  MixtureOfExperts& moe = *hidream.mutable_moe();
  moe.set_experts(Number(arguments.at("num_routed_experts")));
  moe.set_top_k(Number(arguments.at("num_activated_experts")));
  described.data = {.channels = Number(arguments.at("in_channels")),
                    .resolution = NumberAt(arguments.at("max_resolution"), 0)};
  return described;
}

constexpr ModelClass kClass = {"HiDreamImageTransformer2DModel", kArguments,
                               &Read};

}  // namespace

const ModelClass& HidreamClass() { return kClass; }

Json HidreamClassArguments(const HidreamConfig& config) {
  return {{"patch_size", config.patch},
          {"in_channels", config.channels},
          {"out_channels", config.channels},
          {"num_layers", config.dual_layers},
          {"num_single_layers", config.single_layers},
          {"attention_head_dim", config.head_dim()},
          {"num_attention_heads", config.heads},
          {"caption_channels", {config.text_width, config.layer_width}},
          {"text_emb_dim", config.pooled_width},
          {"num_routed_experts", config.moe.experts},
          {"num_activated_experts", config.moe.top_k},
          {"axes_dims_rope", config.rope_axes},
          {"max_resolution", {config.height, config.width}},
          {"llama_layers", config.block_text_layers},
          {"force_inference_output", false}};
}

}  // namespace trireme
