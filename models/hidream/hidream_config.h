// Sizes of a HiDream-I1, resolved: every field has its value.

#ifndef TRIREME_MODELS_HIDREAM_HIDREAM_CONFIG_H_
#define TRIREME_MODELS_HIDREAM_HIDREAM_CONFIG_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/hidream/hidream.pb.h"
#include "moe/moe_config.h"

namespace trireme {

struct HidreamConfig {
  int64_t hidden = 0;
  int64_t dual_layers = 0;
  int64_t single_layers = 0;
  int64_t heads = 0;
  int64_t patch = 2;
  std::array<int64_t, 3> rope_axes = {};  // even; they sum to head_dim()
  int64_t mlp_hidden = 0;                 // of a dual block's text
  MoeConfig moe;                          // of every block
  // Of the encoder's sequence, and of the whole text's vector.
  int64_t text_tokens = 0;
  int64_t text_width = 0;
  int64_t pooled_width = 0;
  bool text_bytes = false;  // of the caption itself
  // Of the language model: layers whose states a sample has, tokens and
  // channels of each, and the layer that each block reads.
  int64_t text_layers = 0;
  int64_t layer_tokens = 0;
  int64_t layer_width = 0;
  std::vector<int32_t> block_text_layers;
  // Of the pictures that it works on.
  int64_t channels = 1;
  int64_t height = 0;
  int64_t width = 0;

  int64_t layers() const { return dual_layers + single_layers; }
  int64_t head_dim() const { return hidden / heads; }
  int64_t rows() const { return height / patch; }
  int64_t columns() const { return width / patch; }
  int64_t tokens() const { return rows() * columns(); }
  int64_t patch_channels() const { return patch * patch * channels; }
  // Of the text that goes from block to block: the encoder's sequence, then
  // the last block's layer of the language model.
  int64_t carried_tokens() const { return text_tokens + layer_tokens; }
};

// Channels inside the published model's SwiGLU over `hidden` channels of which
// an MLP would have `mlp` inside: 2/3 of those, rounded up to a multiple of
// 256.
int64_t HidreamSwiGluHidden(int64_t mlp);

// Fills presets and defaults for square pictures of `resolution` pixels a side.
// Errors name the field ("model.hidream.hidden"), what was found and what was
// expected.
absl::StatusOr<HidreamConfig> ResolveHidream(const Hidream& hidream,
                                             int64_t channels,
                                             int64_t resolution);

// Whether a resolved model can be evaluated on pictures and text of its height,
// width, text_tokens and layer_tokens. Errors name them as diffusers' class
// does.
absl::Status CheckHidreamSizes(const HidreamConfig& config);

// Writes the resolved sizes back, so that a run's job file shows them.
void FillHidream(const HidreamConfig& config, Hidream& hidream);

}  // namespace trireme

#endif  // TRIREME_MODELS_HIDREAM_HIDREAM_CONFIG_H_
