#include "models/hidream/hidream_names.h"

#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "models/hidream/hidream_class.h"
#include "models/transformer/embeddings.h"
#include "nlohmann/json.hpp"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Of all blocks, each of which is several pieces: so that what a file claims
// does not fill the memory. The published model has 192.
constexpr int64_t kMostExperts = 1 << 16;

class Names {
 public:
  explicit Names(const HidreamConfig& config)
      : config_(config),
        h_(config.hidden),
        table_(std::string(HidreamClass().name),
               HidreamClassArguments(config).dump(),
               std::string(HidreamClass().arguments)) {}

  NameTable Make() && {
    Embeddings();
    for (int64_t i = 0; i < config_.dual_layers; ++i) DualBlock(i);
    for (int64_t i = 0; i < config_.single_layers; ++i) SingleBlock(i);
    Modulations({"final.modulation"}, "final_layer.adaLN_modulation.1", 2);
    Linear("final.linear", "final_layer.linear", h_, config_.patch_channels());
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

  // `parts` matrices in each of ours, which theirs holds one after the other.
  void Modulations(const std::vector<std::string>& ours,
                   const std::string& theirs, int64_t parts) {
    const int64_t rows = static_cast<int64_t>(ours.size()) * parts * h_;
    std::vector<NamedShape> weights, biases;
    for (const std::string& name : ours) {
      weights.push_back({name + ".weight", {parts, h_, h_}});
      biases.push_back({name + ".bias", {parts, h_}});
    }
    table_.AddFused(weights, {theirs + ".weight", {rows, h_}});
    table_.AddFused(biases, {theirs + ".bias", {rows}});
  }

  // Queries, keys, values, their norms and the output; the text's have a
  // suffix there.
  void Attention(const std::string& ours, const std::string& theirs,
                 std::string_view suffix) {
    std::vector<NamedShape> weights, biases;
    for (const char* part : {"to_q", "to_k", "to_v"}) {
      const std::string name = fmt::format("{}.{}{}", theirs, part, suffix);
      weights.push_back({name + ".weight", {h_, h_}});
      biases.push_back({name + ".bias", {h_}});
    }
    table_.AddSplit({ours + ".qkv.weight", {3, h_, h_}}, weights);
    table_.AddSplit({ours + ".qkv.bias", {3, h_}}, biases);
    for (const char* part : {"q", "k"}) {
      table_.Add(
          {fmt::format("{}.{}_norm.weight", ours, part), {h_}},
          {fmt::format("{}.{}_rms_norm{}.weight", theirs, part, suffix), {h_}});
    }
    Linear(ours + ".out", fmt::format("{}.to_out{}", theirs, suffix), h_, h_);
  }

  void SwiGlu(const std::string& ours, const std::string& theirs,
              int64_t hidden) {
    table_.AddSplit(
        {ours + ".in.weight", {2, hidden, h_}},
        std::vector<NamedShape>{{theirs + ".w1.weight", {hidden, h_}},
                                {theirs + ".w3.weight", {hidden, h_}}});
    Matrix(ours + ".out", theirs + ".w2", hidden, h_);
  }

  void Experts(const std::string& ours, const std::string& theirs) {
    const MoeConfig& moe = config_.moe;
    table_.Add({ours + ".router.weight", {moe.experts, h_}},
               {theirs + ".gate.weight", {moe.experts, h_}});
    SwiGlu(ours + ".shared", theirs + ".shared_experts", moe.shared_hidden);
    std::vector<NamedShape> in, out;
    for (int64_t e = 0; e < moe.experts; ++e) {
      const std::string expert = fmt::format("{}.experts.{}", theirs, e);
      const Shape inner = {moe.expert_hidden, h_};
      in.push_back({expert + ".w1.weight", inner});
      in.push_back({expert + ".w3.weight", inner});
      out.push_back({expert + ".w2.weight", {h_, moe.expert_hidden}});
    }
    table_.AddSplit(
        {ours + ".experts.in.weight", {moe.experts, 2, moe.expert_hidden, h_}},
        in);
    table_.AddSplit(
        {ours + ".experts.out.weight", {moe.experts, h_, moe.expert_hidden}},
        out);
  }

  void Embeddings() {
    Linear("patch_embedding", "x_embedder.proj", config_.patch_channels(), h_);
    for (const auto& [ours, theirs, in] :
         {std::tuple("time_embedding", "t_embedder.timestep_embedder",
                     kScalarChannels),
          std::tuple("pooled_embedding", "p_embedder.pooled_embedder",
                     config_.pooled_width)}) {
      Linear(fmt::format("{}.in", ours), fmt::format("{}.linear_1", theirs), in,
             h_);
      Linear(fmt::format("{}.out", ours), fmt::format("{}.linear_2", theirs),
             h_, h_);
    }
    Matrix("text_embedding",
           fmt::format("caption_projection.{}.linear", config_.layers()),
           config_.text_width, h_);
    Matrix("last_tap",
           fmt::format("caption_projection.{}.linear", config_.layers() - 1),
           config_.layer_width, h_);
  }

  void Tap(int64_t block) {
    if (block + 1 == config_.layers()) return;
    Matrix(fmt::format("blocks.{}.tap", block),
           fmt::format("caption_projection.{}.linear", block),
           config_.layer_width, h_);
  }

  void DualBlock(int64_t i) {
    const std::string ours = fmt::format("blocks.{}", i);
    const std::string theirs = fmt::format("double_stream_blocks.{}.block", i);
    Modulations({ours + ".modulation", ours + ".text.modulation"},
                theirs + ".adaLN_modulation.1", 6);
    Attention(ours + ".attention", theirs + ".attn1", "");
    Attention(ours + ".text.attention", theirs + ".attn1", "_t");
    Experts(ours + ".moe", theirs + ".ff_i");
    SwiGlu(ours + ".text.mlp", theirs + ".ff_t", config_.mlp_hidden);
    Tap(i);
  }

  void SingleBlock(int64_t i) {
    const int64_t block = config_.dual_layers + i;
    const std::string ours = fmt::format("blocks.{}", block);
    const std::string theirs = fmt::format("single_stream_blocks.{}.block", i);
    Modulations({ours + ".modulation"}, theirs + ".adaLN_modulation.1", 6);
    Attention(ours + ".attention", theirs + ".attn1", "");
    Experts(ours + ".moe", theirs + ".ff_i");
    Tap(block);
  }

  const HidreamConfig& config_;
  int64_t h_;
  NameTable table_;
};

}  // namespace

absl::StatusOr<NameTable> HidreamNames(const HidreamConfig& config) {
  const auto unknown = [](std::string_view field, auto found, auto expected) {
    return FailedPrecondition(
        "model.hidream.{}: found {}, expected {}: diffusers' class has no "
        "other",
        field, found, expected);
  };
  const int64_t inner = HidreamSwiGluHidden(4 * config.hidden);
  const int64_t shared = HidreamSwiGluHidden(2 * config.hidden);
  if (config.mlp_hidden != inner) {
    return unknown("mlp_hidden", config.mlp_hidden, inner);
  }
  if (config.moe.expert_hidden != inner) {
    return unknown("moe.expert_hidden", config.moe.expert_hidden, inner);
  }
  if (config.moe.shared_hidden != shared) {
    return unknown("moe.shared_hidden", config.moe.shared_hidden, shared);
  }
  if (config.moe.kind != MoeConfig::ExpertKind::kSwiGlu) {
    return unknown("moe.expert", "GELU", "SWIGLU");
  }
  if (config.moe.bias) return unknown("moe.bias", true, false);
  if (config.moe.normalize) return unknown("moe.normalize", true, false);
  if (config.moe.router != MoeConfig::RouterKind::kLinear) {
    return unknown("moe.router", "COSINE", "LINEAR");
  }
  if (config.moe.scores != MoeConfig::Scores::kSoftmax) {
    return unknown("moe.scores", "SIGMOID", "SOFTMAX");
  }
  if (config.moe.choice != MoeConfig::Choice::kTokens) {
    return unknown("moe.choice", "EXPERTS", "TOKENS");
  }
  if (config.moe.top_groups < config.moe.groups) {
    return unknown("moe.top_groups", config.moe.top_groups, config.moe.groups);
  }
  if (config.moe.capacity_factor > 0) {
    return unknown("moe.capacity_factor", config.moe.capacity_factor, 0);
  }
  if (config.moe.bias_step > 0) {
    return unknown("moe.bias_step", config.moe.bias_step, 0);
  }
  if (config.moe.balance_over == MoeConfig::BalanceOver::kBatch) {
    return unknown("moe.balance_over", "BATCH", "SAMPLE");
  }
  if (config.moe.importance_over == MoeConfig::BalanceOver::kBatch) {
    return unknown("moe.importance_over", "BATCH", "SAMPLE");
  }
  if (config.moe.experts * config.layers() > kMostExperts) {
    return FailedPrecondition(
        "model.hidream.moe.experts: found {} in each of {} blocks, expected at "
        "most {} in all for diffusers' class",
        config.moe.experts, config.layers(), kMostExperts);
  }
  return Names(config).Make();
}

}  // namespace trireme
