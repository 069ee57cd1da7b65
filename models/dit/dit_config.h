// Sizes of a DiT, resolved: every field has its value.

#ifndef TRIREME_MODELS_DIT_DIT_CONFIG_H_
#define TRIREME_MODELS_DIT_DIT_CONFIG_H_

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "models/dit/dit.pb.h"
#include "moe/moe_config.h"

namespace trireme {

// Pictures that the model works on.
struct ImageSpec {
  int64_t channels = 1;
  int64_t height = 0;
  int64_t width = 0;
};

// Sets of tokens that the model works on.
struct TokenSetSpec {
  int64_t tokens = 0;  // 0: it works on pictures
  int64_t channels = 0;
  // Side of the cube whose places they have, x fastest; 0: they have no order.
  int64_t lattice = 0;
};

struct DitConfig {
  int64_t hidden = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t patch = 2;
  int64_t mlp_hidden = 0;
  bool qk_norm = true;
  Dit::Positions positions = Dit::ROPE;
  // 0: unconditional. The table has one more row, for dropped classes.
  int64_t classes = 0;
  double class_table_stddev = 0.5;
  // Blocks embed times and classes themselves (Dit::PER_BLOCK).
  bool conditions_per_block = false;
  bool learned_variance = false;
  // Of pictures and SINCOS: patches along the side of the picture whose
  // coordinates count them; those of other sizes run over as much. 0: this
  // one's.
  int64_t position_base = 0;
  int64_t text_tokens = 0;  // 0: no text
  int64_t text_width = 0;
  bool text_bytes = false;  // of the caption itself
  Dit::TextAttention text_attention = Dit::CROSS;
  ImageSpec image;
  TokenSetSpec set;
  std::optional<MoeConfig> moe;
  int64_t moe_every = 1;

  // Whether the block has experts in place of its MLP.
  bool has_experts(int64_t block) const {
    return moe.has_value() && (block + 1) % moe_every == 0;
  }
  int64_t head_dim() const { return hidden / heads; }
  int64_t rows() const { return image.height / patch; }
  int64_t columns() const { return image.width / patch; }
  bool of_sets() const { return set.tokens > 0; }
  int64_t tokens() const { return of_sets() ? set.tokens : rows() * columns(); }
  // Of a token's place: rows and columns of pictures, three of a lattice.
  int axes() const { return of_sets() ? 3 : 2; }
  // Of a token as the model is given it.
  int64_t token_channels() const {
    return of_sets() ? set.channels : patch * patch * image.channels;
  }
  // Of a token as the model predicts it.
  int64_t predicted_channels() const {
    return (learned_variance ? 2 : 1) * token_channels();
  }
  bool joint_text() const {
    return text_tokens > 0 && text_attention == Dit::JOINT;
  }
  bool cross_text() const {
    return text_tokens > 0 && text_attention == Dit::CROSS;
  }
};

// Fills presets and defaults. Errors name the field ("model.dit.hidden"), what
// was found and what was expected. With a `set` there are no pictures.
absl::StatusOr<DitConfig> ResolveDit(const Dit& dit, const ImageSpec& image,
                                     int64_t classes,
                                     const TokenSetSpec& set = {});

// Writes the resolved sizes back, so that a run's job file shows them.
void FillDit(const DitConfig& config, Dit& dit);

}  // namespace trireme

#endif  // TRIREME_MODELS_DIT_DIT_CONFIG_H_
