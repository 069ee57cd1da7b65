#include "models/hidream/hidream_block.h"

#include <string>
#include <vector>

#include "fmt/format.h"

namespace trireme {
namespace {

constexpr double kQkNormEps = 1e-5;

StreamSizes SizesOf(const HidreamConfig& config, bool experts) {
  StreamSizes sizes{.hidden = config.hidden,
                    .head_dim = config.head_dim(),
                    .mlp_hidden = config.mlp_hidden,
                    .qk_norm = StreamSizes::QkNorm::kAcrossHeads,
                    .qk_norm_eps = kQkNormEps,
                    .mlp = StreamSizes::Mlp::kSwiGlu};
  if (experts) sizes.moe = config.moe;
  return sizes;
}

// Joint attention of the picture, the text without the padding that tp's shards
// put behind it, and the tap, whose own result nobody reads. All are queries,
// keys and values, heads normed and rotated before.
JointAttentionResult Attend(ForwardContext& context,
                            const HidreamTokens& tokens,
                            const ShardedVariable& image,
                            const ShardedVariable& text,
                            const ShardedVariable& tap, int64_t head_dim,
                            bool text_output) {
  const int64_t padding = tokens.text.padded - tokens.text.tokens;
  const ShardedVariable valid_text =
      padding == 0 ? text : SliceTokens(context, text, 0, tokens.text.tokens);
  const ShardedVariable all_text = ConcatTokens(context, valid_text, tap);
  JointAttentionResult result =
      !tokens.context_parallel && !tokens.image.has_padding()
          ? JointAttentionOnRank(context, image, all_text, head_dim,
                                 /*counts=*/{}, text_output)
          : JointAttention(context, image, &all_text, head_dim,
                           {.valid_tokens = tokens.image.tokens}, text_output);
  if (!text_output) return result;
  result.text = SliceTokens(context, result.text, 0, tokens.text.tokens);
  if (padding > 0) {
    const Tensor& values = result.text.value();
    result.text = ConcatTokens(
        context, result.text,
        {Variable(Tensor::Zeros(values.device(),
                                {values.dim(0), padding, values.dim(2)},
                                values.dtype())),
         result.text.states});
  }
  return result;
}

class DualBlock final : public HidreamBlock {
 public:
  DualBlock(ParameterStore& store, const ProcessGrid& grid,
            const std::string& name, const HidreamConfig& config, Keep keep)
      : head_dim_(config.head_dim()),
        image_(store, grid, name, SizesOf(config, /*experts=*/true), keep,
               /*to_keys_only=*/false),
        text_(store, grid, name + ".text", SizesOf(config, /*experts=*/false),
              keep, /*to_keys_only=*/false) {}

  void Forward(ForwardContext& context, const HidreamTokens& tokens,
               const ShardedVariable& tap, StreamState& state) const override {
    // Two modulations read c. Their gradients are added to each other before
    // they meet those of other blocks, as recomputation of the block does it:
    // sums in another order would differ in the last bit.
    const ShardedVariable silu_c = Fork(context, state.silu_c);
    const std::vector<ShardedVariable> of_image =
        image_.Modulate(context, silu_c);
    const std::vector<ShardedVariable> of_text =
        text_.Modulate(context, silu_c);
    const JointAttentionResult attended =
        Attend(context, tokens,
               image_.NormedQkv(context, state.x, of_image, &tokens.rope),
               text_.NormedQkv(context, state.text, of_text, nullptr),
               text_.NormedQkv(context, tap, of_text, nullptr), head_dim_,
               /*text_output=*/true);
    state.x = image_.Mlp(
        context, image_.Project(context, state.x, attended.image, of_image),
        of_image, tokens.routed_image);
    state.text = text_.Mlp(
        context, text_.Project(context, state.text, attended.text, of_text),
        of_text);
  }

 private:
  int64_t head_dim_;
  ModulatedStream image_;
  ModulatedStream text_;
};

class SingleBlock final : public HidreamBlock {
 public:
  SingleBlock(ParameterStore& store, const ProcessGrid& grid,
              const std::string& name, const HidreamConfig& config, Keep keep,
              bool last)
      : head_dim_(config.head_dim()),
        last_(last),
        stream_(store, grid, name, SizesOf(config, /*experts=*/true), keep,
                /*to_keys_only=*/false) {}

  void Forward(ForwardContext& context, const HidreamTokens& tokens,
               const ShardedVariable& tap, StreamState& state) const override {
    const std::vector<ShardedVariable> modulation =
        stream_.Modulate(context, state.silu_c);
    const JointAttentionResult attended =
        Attend(context, tokens,
               stream_.NormedQkv(context, state.x, modulation, &tokens.rope),
               stream_.NormedQkv(context, state.text, modulation, nullptr),
               stream_.NormedQkv(context, tap, modulation, nullptr), head_dim_,
               /*text_output=*/!last_);
    const ShardedVariable image =
        stream_.Project(context, state.x, attended.image, modulation);
    if (last_) {
      state.x = stream_.Mlp(context, image, modulation, tokens.routed_image);
      state.text = ShardedVariable();
      return;
    }
    const StreamPair both = stream_.MlpOfBoth(
        context,
        {image,
         stream_.Project(context, state.text, attended.text, modulation)},
        modulation, tokens.routed_together);
    state.x = both.image;
    state.text = both.text;
  }

 private:
  int64_t head_dim_;
  bool last_;
  ModulatedStream stream_;
};

}  // namespace

std::unique_ptr<HidreamBlock> MakeHidreamBlock(ParameterStore& store,
                                               const ProcessGrid& grid,
                                               const HidreamConfig& config,
                                               int64_t index, Keep keep) {
  const std::string name = fmt::format("blocks.{}", index);
  if (index < config.dual_layers) {
    return std::make_unique<DualBlock>(store, grid, name, config, keep);
  }
  return std::make_unique<SingleBlock>(store, grid, name, config, keep,
                                       index + 1 == config.layers());
}

}  // namespace trireme
