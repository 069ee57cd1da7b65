#include "models/triposg/triposg_names.h"

#include <algorithm>
#include <array>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "models/transformer/interleaved_heads.h"
#include "nlohmann/json.hpp"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

constexpr char kArguments[] = R"({
  "num_attention_heads": 16, "width": 2048, "in_channels": 64,
  "num_layers": 21, "cross_attention_dim": 1024,
  "use_cross_attention_2": false, "cross_attention_2_dim": null})";

// What a config.json does not say: as many as the published model was trained
// with, and DINOv2-L makes of a picture.
constexpr int64_t kLatents = 2048;
constexpr uint32_t kFeatureTokens = 257;

// Tables are made of pieces of the size of a head: so that what a file claims
// does not fill the memory.
constexpr int64_t kMostPieces = int64_t{1} << 20;

uint32_t Number(const Json& value) {
  return value.is_number_unsigned()
             ? static_cast<uint32_t>(std::min<uint64_t>(
                   value.get<uint64_t>(), std::numeric_limits<uint32_t>::max()))
             : 0;
}

DescribedModel Read(const Json& arguments) {
  DescribedModel described;
  Triposg& triposg = *described.model.mutable_triposg();
  triposg.set_hidden(Number(arguments.at("width")));
  triposg.set_layers(Number(arguments.at("num_layers")));
  triposg.set_heads(Number(arguments.at("num_attention_heads")));
  triposg.mutable_features()->set_tokens(kFeatureTokens);
  triposg.mutable_features()->set_width(
      Number(arguments.at("cross_attention_dim")));
  const int64_t channels = Number(arguments.at("in_channels"));
  described.data = {
      .channels = channels, .tokens = kLatents, .token_channels = channels};
  return described;
}

constexpr ModelClass kClass = {"TripoSGDiTModel", kArguments, &Read};

Json ArgumentsOf(const TriposgConfig& config) {
  return {{"num_attention_heads", config.heads},
          {"width", config.hidden},
          {"in_channels", config.channels},
          {"num_layers", config.layers},
          {"cross_attention_dim", config.condition.feature_width},
          {"use_cross_attention_2", false},
          {"cross_attention_2_dim", nullptr}};
}

class Names {
 public:
  explicit Names(const TriposgConfig& config)
      : config_(config),
        h_(config.hidden),
        table_(std::string(kClass.name), ArgumentsOf(config).dump(),
               std::string(kClass.arguments)) {}

  NameTable Make() && {
    Linear("token_embedding", "proj_in", config_.channels, h_);
    Linear("time_embedding.in", "time_proj.linear_1", h_, config_.mlp_hidden());
    Linear("time_embedding.out", "time_proj.linear_2", config_.mlp_hidden(),
           h_);
    for (int64_t i = 0; i < config_.layers; ++i) Block(i);
    Norm("final.norm", "norm_out");
    Linear("final.linear", "proj_out", h_, config_.channels);
    table_.CheckComplete();
    return std::move(table_);
  }

 private:
  void Matrix(const std::string& ours, const std::string& theirs, int64_t in,
              int64_t out) {
    table_.Add({ours + ".weight", {out, in}}, {theirs + ".weight", {out, in}});
  }
  void Linear(const std::string& ours, const std::string& theirs, int64_t in,
              int64_t out) {
    Matrix(ours, theirs, in, out);
    table_.Add({ours + ".bias", {out}}, {theirs + ".bias", {out}});
  }
  void Norm(const std::string& ours, const std::string& theirs) {
    for (const char* part : {".weight", ".bias"}) {
      table_.Add({ours + part, {h_}}, {theirs + part, {h_}});
    }
  }
  void HeadNorms(const std::string& ours, const std::string& theirs) {
    for (const char* part : {"q", "k"}) {
      table_.Add(
          {fmt::format("{}.{}_norm.weight", ours, part), {config_.head_dim()}},
          {fmt::format("{}.norm_{}.weight", theirs, part),
           {config_.head_dim()}});
    }
  }

  void Interleaved(const std::string& ours, std::span<const std::string> theirs,
                   int64_t in) {
    AddInterleavedHeads(ours, theirs, config_.heads, h_, in, table_);
  }

  void Block(int64_t i) {
    const std::string ours = fmt::format("blocks.{}.", i);
    const std::string& theirs = ours;
    if (config_.has_skip(i)) {
      Linear(ours + "skip.linear", theirs + "skip_linear", 2 * h_, h_);
      Norm(ours + "skip.norm", theirs + "skip_norm");
    }
    Norm(ours + "attention.norm", theirs + "norm1");
    Interleaved(ours + "attention.qkv",
                std::array{theirs + "attn1.to_q", theirs + "attn1.to_k",
                           theirs + "attn1.to_v"},
                h_);
    HeadNorms(ours + "attention", theirs + "attn1");
    Linear(ours + "attention.out", theirs + "attn1.to_out.0", h_, h_);
    Norm(ours + "cross.norm", theirs + "norm2");
    Matrix(ours + "cross.q", theirs + "attn2.to_q", h_, h_);
    Interleaved(ours + "cross.kv",
                std::array{theirs + "attn2.to_k", theirs + "attn2.to_v"},
                config_.condition.feature_width);
    HeadNorms(ours + "cross", theirs + "attn2");
    Linear(ours + "cross.out", theirs + "attn2.to_out.0", h_, h_);
    Norm(ours + "mlp.norm", theirs + "norm3");
    Linear(ours + "mlp.in", theirs + "ff.net.0.proj", h_, config_.mlp_hidden());
    Linear(ours + "mlp.out", theirs + "ff.net.2", config_.mlp_hidden(), h_);
  }

  const TriposgConfig& config_;
  int64_t h_;
  NameTable table_;
};

}  // namespace

const ModelClass& TriposgClass() { return kClass; }

absl::StatusOr<NameTable> TriposgNames(const TriposgConfig& config) {
  if (config.condition.kind != CrossCondition::Kind::kFeatures) {
    return FailedPrecondition(
        "model.triposg: found a model without features, expected some: "
        "TripoSG's class attends to nothing else");
  }
  if (config.moe.has_value()) {
    return FailedPrecondition(
        "model.triposg.moe: found {} experts, expected none: TripoSG's class "
        "has no mixtures",
        config.moe->experts);
  }
  if (config.layers * config.heads > kMostPieces) {
    return FailedPrecondition(
        "model.triposg: found {} heads in each of {} blocks, expected at most "
        "{} in all for TripoSG's class",
        config.heads, config.layers, kMostPieces);
  }
  return Names(config).Make();
}

}  // namespace trireme
