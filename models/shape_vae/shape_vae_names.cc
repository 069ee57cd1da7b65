#include "models/shape_vae/shape_vae_names.h"

#include <algorithm>
#include <limits>
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
  "in_channels": 3, "latent_channels": 64, "num_attention_heads": 8,
  "width_encoder": 512, "width_decoder": 1024, "num_layers_encoder": 8,
  "num_layers_decoder": 16, "embedding_type": "frequency",
  "embed_frequency": 8, "embed_include_pi": false})";

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
  ShapeVae& vae = *described.model.mutable_shape_vae();
  vae.set_preset(ShapeVae::TRIPOSG);
  vae.set_channels(Number(arguments.at("latent_channels")));
  vae.set_heads(Number(arguments.at("num_attention_heads")));
  vae.set_encoder_hidden(Number(arguments.at("width_encoder")));
  vae.set_decoder_hidden(Number(arguments.at("width_decoder")));
  vae.set_encoder_layers(Number(arguments.at("num_layers_encoder")));
  vae.set_decoder_layers(Number(arguments.at("num_layers_decoder")));
  vae.set_frequencies(Number(arguments.at("embed_frequency")));
  described.data.channels = Number(arguments.at("in_channels"));
  return described;
}

constexpr ModelClass kClass = {"TripoSGVAEModel", kArguments, &Read};

Json ArgumentsOf(const ShapeVaeConfig& config) {
  return {{"in_channels", 3},
          {"latent_channels", config.channels},
          {"num_attention_heads", config.heads},
          {"width_encoder", config.encoder_hidden},
          {"width_decoder", config.decoder_hidden},
          {"num_layers_encoder", config.encoder_layers},
          {"num_layers_decoder", config.decoder_layers},
          {"embedding_type", "frequency"},
          {"embed_frequency", config.frequencies},
          {"embed_include_pi", false}};
}

class Names {
 public:
  explicit Names(const ShapeVaeConfig& config)
      : config_(config),
        table_(std::string(kClass.name), ArgumentsOf(config).dump(),
               std::string(kClass.arguments)) {}

  NameTable Make() && {
    const int64_t encoder = config_.encoder_hidden;
    const int64_t decoder = config_.decoder_hidden;
    Linear("point_embedding", "encoder.proj_in", config_.point_channels(),
           encoder);
    CrossBlock("encoder_cross", "encoder.blocks.0", encoder);
    for (int64_t i = 0; i < config_.encoder_layers; ++i) {
      SelfBlock(fmt::format("blocks.{}", i),
                fmt::format("encoder.blocks.{}", i + 1), encoder);
    }
    Norm("moments.norm", "encoder.norm_out", encoder);
    Linear("moments.linear", "quant", encoder, 2 * config_.channels);
    Linear("latent_embedding", "post_quant", config_.channels, decoder);
    for (int64_t i = 0; i < config_.decoder_layers; ++i) {
      SelfBlock(fmt::format("blocks.{}", config_.encoder_layers + i),
                fmt::format("decoder.blocks.{}", i), decoder);
    }
    Linear("query_embedding", "decoder.proj_query", config_.position_channels(),
           decoder);
    CrossBlock("decoder_cross",
               fmt::format("decoder.blocks.{}", config_.decoder_layers),
               decoder);
    Norm("final.norm", "decoder.norm_out", decoder);
    Linear("final.linear", "decoder.proj_out", decoder, 1);
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
  void Norm(const std::string& ours, const std::string& theirs, int64_t width) {
    for (const char* part : {".weight", ".bias"}) {
      table_.Add({ours + part, {width}}, {theirs + part, {width}});
    }
  }
  void Interleaved(const std::string& ours,
                   const std::vector<std::string>& theirs, int64_t width) {
    AddInterleavedHeads(ours, theirs, config_.heads, width, width, table_);
  }
  // What both kinds of blocks end with.
  void Rest(const std::string& ours, const std::string& attention,
            const std::string& theirs, int64_t width) {
    Linear(ours + ".attention.out", attention + ".to_out.0", width, width);
    Norm(ours + ".mlp.norm", theirs + ".norm3", width);
    Linear(ours + ".mlp.in", theirs + ".ff.net.0.proj", width,
           kShapeVaeMlpRatio * width);
    Linear(ours + ".mlp.out", theirs + ".ff.net.2", kShapeVaeMlpRatio * width,
           width);
  }
  void SelfBlock(const std::string& ours, const std::string& theirs,
                 int64_t width) {
    const std::string attention = theirs + ".attn1";
    Norm(ours + ".attention.norm", theirs + ".norm1", width);
    Interleaved(ours + ".attention.qkv",
                {attention + ".to_q", attention + ".to_k", attention + ".to_v"},
                width);
    Rest(ours, attention, theirs, width);
  }
  void CrossBlock(const std::string& ours, const std::string& theirs,
                  int64_t width) {
    const std::string attention = theirs + ".attn2";
    Norm(ours + ".attention.norm", theirs + ".norm2", width);
    Norm(ours + ".attention.context_norm", attention + ".norm_cross", width);
    Matrix(ours + ".attention.q", attention + ".to_q", width, width);
    Interleaved(ours + ".attention.kv",
                {attention + ".to_k", attention + ".to_v"}, width);
    Rest(ours, attention, theirs, width);
  }

  const ShapeVaeConfig& config_;
  NameTable table_;
};

}  // namespace

const ModelClass& ShapeVaeClass() { return kClass; }

absl::StatusOr<NameTable> ShapeVaeNames(const ShapeVaeConfig& config) {
  if (config.layers() * config.heads > kMostPieces) {
    return FailedPrecondition(
        "model.shape_vae: found {} heads in each of {} blocks, expected at "
        "most {} in all for TripoSG's class",
        config.heads, config.layers(), kMostPieces);
  }
  return Names(config).Make();
}

}  // namespace trireme
