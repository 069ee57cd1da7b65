#include "models/swin/swin_names.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

constexpr char kArguments[] = R"({
  "model_type": "swinv2", "image_size": 224, "patch_size": 4,
  "num_channels": 3, "embed_dim": 96, "depths": [2, 2, 6, 2],
  "num_heads": [3, 6, 12, 24], "window_size": 7,
  "pretrained_window_sizes": [0, 0, 0, 0], "mlp_ratio": 4.0,
  "qkv_bias": true, "hidden_dropout_prob": 0.0,
  "attention_probs_dropout_prob": 0.0, "hidden_act": "gelu",
  "use_absolute_embeddings": false, "layer_norm_eps": 1e-5, "num_labels": 2,
  "_noted": {"drop_path_rate": 0.1, "initializer_range": null,
    "encoder_stride": null, "hidden_size": null, "num_layers": null,
    "out_features": null, "out_indices": null, "stage_names": null,
    "path_norm": null}})";
constexpr char kDropPath[] = "drop_path_rate";
constexpr char kLearntWindows[] = "pretrained_window_sizes";
// Of the class's own stages, as many as it counts these for.
constexpr size_t kStages = 4;

uint32_t Number(const Json& arguments, const char* name) {
  return arguments.at(name).get<uint32_t>();
}

DescribedModel Read(const Json& arguments) {
  DescribedModel described;
  Swin& swin = *described.model.mutable_swin();
  swin.set_patch(Number(arguments, "patch_size"));
  swin.set_hidden(Number(arguments, "embed_dim"));
  swin.set_window(Number(arguments, "window_size"));
  swin.set_mlp_ratio(arguments.at("mlp_ratio").get<double>());
  swin.set_drop_path(arguments.at(kNotedArguments).at(kDropPath).get<double>());
  const Json& depths = arguments.at("depths");
  const Json& heads = arguments.at("num_heads");
  const Json& learnt = arguments.at(kLearntWindows);
  for (size_t i = 0; i < depths.size(); ++i) {
    Swin::Stage& stage = *swin.add_stages();
    stage.set_blocks(depths[i].get<uint32_t>());
    if (i < heads.size()) stage.set_heads(heads[i].get<uint32_t>());
    if (i < learnt.size()) stage.set_learnt_window(learnt[i].get<uint32_t>());
  }
  described.data = {.channels = Number(arguments, "num_channels"),
                    .resolution = Number(arguments, "image_size"),
                    .classes = Number(arguments, "num_labels")};
  return described;
}

constexpr ModelClass kClass = {"Swinv2ForImageClassification", kArguments,
                               &Read, "num_channels"};

double MlpRatio(const SwinConfig& config) {
  return static_cast<double>(config.mlp_hidden) /
         static_cast<double>(config.hidden);
}

Json ArgumentsOf(const SwinConfig& config) {
  Json json = Json::parse(kArguments);
  Json depths = Json::array();
  Json heads = Json::array();
  Json learnt = Json::array();
  for (const SwinConfig::Stage& stage : config.stages) {
    depths.push_back(stage.blocks);
    heads.push_back(stage.heads);
    learnt.push_back(stage.learnt_window);
  }
  while (learnt.size() < kStages) learnt.push_back(0);
  json.update({{"image_size", config.side},
               {"patch_size", config.patch},
               {"num_channels", config.channels},
               {"embed_dim", config.hidden},
               {"depths", depths},
               {"num_heads", heads},
               {"window_size", config.window},
               {kLearntWindows, learnt},
               {"mlp_ratio", MlpRatio(config)},
               {"num_labels", config.classes}});
  // The class makes the others itself.
  json[kNotedArguments] = {{kDropPath, config.drop_path}};
  return json;
}

class Names {
 public:
  explicit Names(const SwinConfig& config)
      : config_(config),
        table_(std::string(kClass.name), ArgumentsOf(config).dump(),
               std::string(kClass.arguments), WeightLibrary::kTransformers) {}

  NameTable Make() && {
    const int64_t p = config_.patch, c = config_.channels, h = config_.hidden;
    const std::string embeddings = "swinv2.embeddings.";
    // A patch's channels come first there.
    table_.AddPermuted(
        {"patch_embedding.weight", {h, p * p * c}}, {h, p, p, c}, {0, 3, 1, 2},
        {embeddings + "patch_embeddings.projection.weight", {h, c, p, p}});
    table_.Add({"patch_embedding.bias", {h}},
               {embeddings + "patch_embeddings.projection.bias", {h}});
    Norm("patch_embedding.norm", embeddings + "norm", h);
    int64_t first_of_stage = 0;
    for (int64_t i = 0; i < config_.layers(); ++i) {
      const SwinBlockSizes sizes = SizesOfBlock(config_, i);
      if (sizes.merges) first_of_stage = i;
      Block(i, i - first_of_stage, sizes);
    }
    const int64_t last = config_.HiddenOf(config_.num_stages() - 1);
    Norm("final.norm", "swinv2.layernorm", last);
    Linear("final.linear", "classifier", last, config_.classes);
    table_.CheckComplete();
    return std::move(table_);
  }

 private:
  void Same(const std::string& ours, const std::string& theirs,
            const Shape& shape) {
    table_.Add({ours, shape}, {theirs, shape});
  }
  void Norm(const std::string& ours, const std::string& theirs, int64_t width) {
    Same(ours + ".weight", theirs + ".weight", {width});
    Same(ours + ".bias", theirs + ".bias", {width});
  }
  void Linear(const std::string& ours, const std::string& theirs, int64_t in,
              int64_t out) {
    Same(ours + ".weight", theirs + ".weight", {out, in});
    Same(ours + ".bias", theirs + ".bias", {out});
  }

  void Attention(const std::string& ours, const std::string& theirs,
                 const SwinBlockSizes& sizes) {
    const int64_t h = sizes.hidden;
    const std::string inner = theirs + "self.";
    table_.AddSplit({ours + "qkv.weight", {3, h, h}},
                    std::vector<NamedShape>{{inner + "query.weight", {h, h}},
                                            {inner + "key.weight", {h, h}},
                                            {inner + "value.weight", {h, h}}});
    table_.AddSplit({ours + "qkv.bias", {2, h}},
                    std::vector<NamedShape>{{inner + "query.bias", {h}},
                                            {inner + "value.bias", {h}}});
    table_.Add({ours + "log_scales", {sizes.heads}},
               {inner + "logit_scale", {sizes.heads, 1, 1}});
    const std::string biases = inner + "continuous_position_bias_mlp.";
    Linear(ours + "biases.in", biases + "0", 2, kSwinBiasHidden);
    Same(ours + "biases.out.weight", biases + "2.weight",
         {sizes.heads, kSwinBiasHidden});
    Linear(ours + "out", theirs + "output.dense", h, h);
  }

  // `number`: within its stage.
  void Block(int64_t index, int64_t number, const SwinBlockSizes& sizes) {
    const int64_t h = sizes.hidden;
    const std::string ours = fmt::format("blocks.{}.", index);
    const std::string layers = "swinv2.encoder.layers.";
    if (sizes.merges) {
      // There it ends the stage before.
      const std::string merging =
          fmt::format("{}{}.downsample.", layers, sizes.stage - 1);
      Same(ours + "merging.linear.weight", merging + "reduction.weight",
           {h, 2 * h});
      Norm(ours + "merging.norm", merging + "norm", h);
    }
    const std::string theirs =
        fmt::format("{}{}.blocks.{}.", layers, sizes.stage, number);
    Attention(ours + "attention.", theirs + "attention.", sizes);
    Norm(ours + "attention.norm", theirs + "layernorm_before", h);
    Linear(ours + "mlp.in", theirs + "intermediate.dense", h, sizes.mlp_hidden);
    Linear(ours + "mlp.out", theirs + "output.dense", sizes.mlp_hidden, h);
    Norm(ours + "mlp.norm", theirs + "layernorm_after", h);
  }

  const SwinConfig& config_;
  NameTable table_;
};

}  // namespace

const ModelClass& SwinClass() { return kClass; }

absl::StatusOr<NameTable> SwinNames(const SwinConfig& config) {
  if (config.moe.has_value()) {
    return FailedPrecondition(
        "model.swin.moe.experts: found {}, expected none: {} of transformers "
        "has no other",
        config.moe->experts, kClass.name);
  }
  for (int64_t stage = 0; stage < config.num_stages(); ++stage) {
    // As the class computes it.
    const auto width = static_cast<int64_t>(
        MlpRatio(config) * static_cast<double>(config.HiddenOf(stage)));
    if (width == config.mlp_hidden << stage) continue;
    return FailedPrecondition(
        "model.swin.mlp_ratio: found {}, of which {} of transformers makes {} "
        "channels in stages[{}], expected one that makes {}",
        MlpRatio(config), kClass.name, width, stage,
        config.mlp_hidden << stage);
  }
  return Names(config).Make();
}

}  // namespace trireme
