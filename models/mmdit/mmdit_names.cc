#include "models/mmdit/mmdit_names.h"

#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "models/mmdit/mmdit_classes.h"
#include "models/transformer/embeddings.h"
#include "models/transformer/position_table.h"
#include "nlohmann/json.hpp"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Rows of all single blocks' output matrices, each of which is a piece: nine
// times FLUX.1's, so that what a file claims does not fill the memory.
constexpr int64_t kMostSingleRows = 1 << 20;

// Tensors of either class, and those that only one has.
class Names {
 public:
  Names(const MmditConfig& config, bool flux)
      : config_(config),
        h_(config.hidden),
        flux_(flux),
        table_(std::string(MmditClassOf(config).name),
               MmditClassArguments(config).dump(),
               std::string(MmditClassOf(config).arguments)) {}

  NameTable Make() && {
    Embeddings();
    for (int64_t i = 0; i < config_.dual_layers; ++i) DualBlock(i);
    for (int64_t i = 0; i < config_.single_layers; ++i) SingleBlock(i);
    ScaleBeforeShift("final.modulation", "norm_out.linear");
    Output();
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

  // Two: shift and scale here, scale and shift there.
  void ScaleBeforeShift(const std::string& ours, const std::string& theirs) {
    constexpr int kParts[] = {1, 0};
    table_.AddReordered({ours + ".weight", {2, h_, h_}}, kParts,
                        {theirs + ".weight", {2 * h_, h_}});
    table_.AddReordered({ours + ".bias", {2, h_}}, kParts,
                        {theirs + ".bias", {2 * h_}});
  }

  // `theirs` q, k and v, in this order.
  void Qkv(const std::string& ours, const std::vector<std::string>& theirs) {
    std::vector<NamedShape> weights;
    std::vector<NamedShape> biases;
    for (const std::string& name : theirs) {
      weights.push_back({name + ".weight", {h_, h_}});
      biases.push_back({name + ".bias", {h_}});
    }
    table_.AddSplit({ours + ".weight", {3, h_, h_}}, weights);
    table_.AddSplit({ours + ".bias", {3, h_}}, biases);
  }

  void HeadNorm(const std::string& ours, const std::string& theirs) {
    if (!config_.qk_norm) return;
    const int64_t d = config_.head_dim();
    table_.Add({ours + ".weight", {d}}, {theirs + ".weight", {d}});
  }

  void HeadNorms(const std::string& ours, const std::string& their_q,
                 const std::string& their_k) {
    HeadNorm(ours + ".q_norm", their_q);
    HeadNorm(ours + ".k_norm", their_k);
  }

  void Mlp(const std::string& ours, const std::string& theirs) {
    Linear(ours + ".in", theirs + ".net.0.proj", h_, config_.mlp_hidden);
    Linear(ours + ".out", theirs + ".net.2", config_.mlp_hidden, h_);
  }

  void ConditionMlp(const std::string& ours, const std::string& theirs,
                    int64_t in) {
    Linear(ours + ".in", theirs + ".linear_1", in, h_);
    Linear(ours + ".out", theirs + ".linear_2", h_, h_);
  }

  void Embeddings() {
    const int64_t p = config_.patch, c = config_.channels;
    // A patch's channels come first there.
    const NamedShape patches = {"patch_embedding.weight", {h_, p * p * c}};
    const std::string theirs = flux_ ? "x_embedder" : "pos_embed.proj";
    table_.AddPermuted(patches, {h_, p, p, c}, {0, 3, 1, 2},
                       {theirs + ".weight",
                        flux_ ? Shape{h_, c * p * p} : Shape{h_, c, p, p}});
    table_.Add({"patch_embedding.bias", {h_}}, {theirs + ".bias", {h_}});
    Linear("text_embedding", "context_embedder", config_.text_width, h_);
    const std::string condition = "time_text_embed.";
    ConditionMlp("time_embedding", condition + "timestep_embedder",
                 kScalarChannels);
    ConditionMlp("pooled_embedding", condition + "text_embedder",
                 config_.pooled_width);
    if (config_.guidance.has_value()) {
      ConditionMlp("guidance_embedding", condition + "guidance_embedder",
                   kScalarChannels);
    }
    if (flux_) return;
    const int64_t side = config_.position_table;
    table_.AddConstant(
        {.tensor = {"pos_embed.pos_embed", {1, side * side, h_}},
         .element = [config = config_](int64_t i) {
           const int64_t h = config.hidden;
           const int64_t token = i / h;
           const double coordinates[] = {
               config.position_coordinate(token / config.position_table),
               config.position_coordinate(token % config.position_table)};
           return SinCosElement(h, coordinates, i % h);
         }});
  }

  void DualBlock(int64_t i) {
    const std::string ours = fmt::format("blocks.{}", i);
    const std::string theirs = fmt::format("transformer_blocks.{}", i);
    const std::string attention = theirs + ".attn";
    const bool last = i + 1 == config_.layers();
    const bool image_attention = i < config_.image_attention_layers;
    Modulation(ours + ".modulation", theirs + ".norm1.linear",
               image_attention ? 9 : 6);
    Qkv(ours + ".attention.qkv",
        {attention + ".to_q", attention + ".to_k", attention + ".to_v"});
    HeadNorms(ours + ".attention", attention + ".norm_q",
              attention + ".norm_k");
    Linear(ours + ".attention.out", attention + ".to_out.0", h_, h_);
    Mlp(ours + ".mlp", theirs + ".ff");
    if (image_attention) {
      const std::string second = theirs + ".attn2";
      Qkv(ours + ".image_attention.qkv",
          {second + ".to_q", second + ".to_k", second + ".to_v"});
      HeadNorms(ours + ".image_attention", second + ".norm_q",
                second + ".norm_k");
      Linear(ours + ".image_attention.out", second + ".to_out.0", h_, h_);
    }
    Qkv(ours + ".text.attention.qkv",
        {attention + ".add_q_proj", attention + ".add_k_proj",
         attention + ".add_v_proj"});
    HeadNorms(ours + ".text.attention", attention + ".norm_added_q",
              attention + ".norm_added_k");
    if (last) {
      ScaleBeforeShift(ours + ".text.modulation",
                       theirs + ".norm1_context.linear");
      return;
    }
    Modulation(ours + ".text.modulation", theirs + ".norm1_context.linear", 6);
    Linear(ours + ".text.attention.out", attention + ".to_add_out", h_, h_);
    Mlp(ours + ".text.mlp", theirs + ".ff_context");
  }

  void SingleBlock(int64_t i) {
    const std::string ours = fmt::format("blocks.{}", config_.dual_layers + i);
    const std::string theirs = fmt::format("single_transformer_blocks.{}", i);
    const std::string attention = theirs + ".attn";
    Modulation(ours + ".modulation", theirs + ".norm.linear", 3);
    Qkv(ours + ".attention.qkv",
        {attention + ".to_q", attention + ".to_k", attention + ".to_v"});
    HeadNorms(ours + ".attention", attention + ".norm_q",
              attention + ".norm_k");
    Linear(ours + ".mlp.in", theirs + ".proj_mlp", h_, config_.mlp_hidden);
    // One matrix there: its columns are attention's, then the MLP's.
    const int64_t m = config_.mlp_hidden;
    const NamedShape from_attention = {ours + ".attention.out.weight",
                                       {h_, h_}};
    const NamedShape from_mlp = {ours + ".mlp.out.weight", {h_, m}};
    const NamedShape both = {theirs + ".proj_out.weight", {h_, h_ + m}};
    table_.DeclareParameter(from_attention);
    table_.DeclareParameter(from_mlp);
    table_.DeclareTensor(both);
    for (int64_t row = 0; row < h_; ++row) {
      table_.AddPiece({.parameter = from_attention.name,
                       .tensor = both.name,
                       .parameter_begin = row * h_,
                       .tensor_begin = row * (h_ + m),
                       .view = {h_}});
      table_.AddPiece({.parameter = from_mlp.name,
                       .tensor = both.name,
                       .parameter_begin = row * m,
                       .tensor_begin = row * (h_ + m) + h_,
                       .view = {m}});
    }
    table_.Add({ours + ".attention.out.bias", {h_}},
               {theirs + ".proj_out.bias", {h_}});
  }

  void Output() {
    const int64_t p = config_.patch, c = config_.channels;
    if (!flux_) {
      Linear("final.linear", "proj_out", h_, p * p * c);
      return;
    }
    table_.AddPermuted({"final.linear.weight", {p * p * c, h_}}, {p, p, c, h_},
                       {2, 0, 1, 3}, {"proj_out.weight", {c * p * p, h_}});
    table_.AddPermuted({"final.linear.bias", {p * p * c}}, {p, p, c}, {2, 0, 1},
                       {"proj_out.bias", {c * p * p}});
  }

  const MmditConfig& config_;
  int64_t h_;
  bool flux_;
  NameTable table_;
};

}  // namespace

absl::StatusOr<NameTable> MmditNames(const MmditConfig& config) {
  if (config.of_sets()) {
    return FailedPrecondition(
        "model.mmdit: found sets of tokens, expected pictures for a class of "
        "diffusers");
  }
  if (config.views > 1) {
    return FailedPrecondition(
        "model.mmdit: found {} views a sample, expected one for a class of "
        "diffusers",
        config.views);
  }
  const bool flux = config.positions == Mmdit::ROPE;
  const auto unknown = [&](std::string_view field, auto found,
                           std::string_view expected) {
    return FailedPrecondition(
        "model.mmdit.{}: found {}, expected {}: no class of diffusers with "
        "positions {} has another",
        field, found, expected, flux ? "ROPE" : "SINCOS");
  };
  if (config.mlp_hidden != 4 * config.hidden) {
    return unknown("mlp_ratio",
                   static_cast<double>(config.mlp_hidden) /
                       static_cast<double>(config.hidden),
                   "4");
  }
  if (config.experts.has_value()) {
    return unknown("moe.experts", config.experts->moe.experts, "none");
  }
  if (flux) {
    if (config.single_layers == 0) return unknown("single_layers", 0, "one");
    if (!config.qk_norm) return unknown("qk_norm", false, "true");
    if (config.image_attention_layers > 0) {
      return unknown("image_attention_layers", config.image_attention_layers,
                     "0");
    }
  } else {
    if (config.single_layers > 0) {
      return unknown("single_layers", config.single_layers, "0");
    }
    if (config.guidance.has_value()) {
      return unknown("guidance", *config.guidance, "none");
    }
  }
  if (config.single_layers > kMostSingleRows / config.hidden) {
    return FailedPrecondition(
        "model.mmdit.single_layers: found {} of hidden {}, expected at most {} "
        "of that width for a class of diffusers",
        config.single_layers, config.hidden, kMostSingleRows / config.hidden);
  }
  return Names(config, flux).Make();
}

}  // namespace trireme
