// Sizes of an MMDiT, resolved: every field has its value.

#ifndef TRIREME_MODELS_MMDIT_MMDIT_CONFIG_H_
#define TRIREME_MODELS_MMDIT_MMDIT_CONFIG_H_

#include <array>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/mmdit/mmdit.pb.h"
#include "models/transformer/moe_fields.h"

namespace trireme {

struct MmditConfig {
  int64_t hidden = 0;
  int64_t dual_layers = 0;
  int64_t single_layers = 0;
  int64_t heads = 0;
  int64_t patch = 2;
  int64_t mlp_hidden = 0;
  bool qk_norm = true;
  Mmdit::Positions positions = Mmdit::ROPE;
  std::array<int64_t, 3> rope_axes = {};  // even; they sum to head_dim()
  int64_t position_table = 192;
  int64_t position_base = 64;
  int64_t text_tokens = 0;
  int64_t text_width = 0;
  int64_t pooled_width = 0;
  bool text_bytes = false;  // of the caption itself
  std::optional<double> guidance;
  int64_t image_attention_layers = 0;
  std::optional<BlockExperts> experts;  // of dual blocks
  // Of the pictures that it works on, or of a token.
  int64_t channels = 1;
  int64_t height = 0;
  int64_t width = 0;
  // Pictures of a sample, one under another, whose tokens attend to each other
  // as those of one do.
  int64_t views = 1;
  bool view_streams = false;  // dual blocks have weights for each view
  // Where it works on sets of tokens, how many a set has; else 0.
  int64_t set_tokens = 0;

  // Whether the block has experts in place of the picture's MLP.
  bool has_experts(int64_t block) const {
    return block < dual_layers && experts.has_value() && experts->Has(block);
  }
  int64_t layers() const { return dual_layers + single_layers; }
  int64_t head_dim() const { return hidden / heads; }
  int64_t rows() const { return height / patch; }
  int64_t columns() const { return width / patch; }
  bool of_sets() const { return set_tokens > 0; }
  int64_t tokens() const {
    return of_sets() ? set_tokens : views * rows() * columns();
  }
  // Of a token as the model is given it.
  int64_t patch_channels() const {
    return of_sets() ? channels : patch * patch * channels;
  }
  // Of SINCOS: where row or column i of the table lies, in fp32, as diffusers
  // has it: its files hold the table.
  double position_coordinate(int64_t i) const {
    return static_cast<float>(i) /
           static_cast<float>(static_cast<double>(position_table) /
                              static_cast<double>(position_base));
  }
};

// Fills presets and defaults for square pictures of `resolution` pixels a side,
// `views` a sample, or for sets of `set_tokens` tokens of `channels`.
// Errors name the field ("model.mmdit.hidden"), what was found and what was
// expected.
absl::StatusOr<MmditConfig> ResolveMmdit(const Mmdit& mmdit, int64_t channels,
                                         int64_t resolution,
                                         int64_t set_tokens = 0,
                                         int64_t views = 1);

// Whether a resolved model can be evaluated on pictures and text of its height,
// width and text_tokens. Errors name them as diffusers' classes do.
absl::Status CheckMmditSizes(const MmditConfig& config);

// Writes the resolved sizes back, so that a run's job file shows them.
void FillMmdit(const MmditConfig& config, Mmdit& mmdit);

}  // namespace trireme

#endif  // TRIREME_MODELS_MMDIT_MMDIT_CONFIG_H_
