// Sizes of a TripoSG transformer, resolved: every field has its value.

#ifndef TRIREME_MODELS_TRIPOSG_TRIPOSG_CONFIG_H_
#define TRIREME_MODELS_TRIPOSG_TRIPOSG_CONFIG_H_

#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/transformer/cross_condition.h"
#include "models/triposg/triposg.pb.h"
#include "moe/moe_config.h"

namespace trireme {

// An MLP's channels over a token's.
inline constexpr int64_t kTriposgMlpRatio = 4;

struct TriposgConfig {
  int64_t hidden = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  // Of a sample: tokens in no order, and the channels of each.
  int64_t latents = 0;
  int64_t channels = 0;

  CrossCondition condition;

  std::optional<MoeConfig> moe;
  int64_t expert_blocks = 0;

  // Blocks before the middle one, each of which one behind it reads.
  int64_t half() const { return layers / 2; }
  bool has_skip(int64_t block) const { return block > half(); }
  // Which one reads the result of a block before the middle one.
  int64_t ReaderOf(int64_t block) const { return 2 * half() - block; }
  // Results of earlier blocks that are carried into the block and read there or
  // later.
  int64_t skips_before(int64_t block) const {
    return std::min(block, half()) - std::max<int64_t>(block - half() - 1, 0);
  }
  bool has_experts(int64_t block) const {
    return moe.has_value() && block >= layers - expert_blocks;
  }
  int64_t head_dim() const { return hidden / heads; }
  int64_t mlp_hidden() const { return kTriposgMlpRatio * hidden; }
  // With that of the time.
  int64_t tokens() const { return latents + 1; }
  // Channels of what blocks attend to.
  int64_t condition_width() const { return condition.width(hidden); }
};

// Fills presets and defaults, for samples of `latents` tokens of `channels`.
// Errors name the field ("model.triposg.hidden"), what was found and what was
// expected.
absl::StatusOr<TriposgConfig> ResolveTriposg(const Triposg& triposg,
                                             int64_t latents, int64_t channels,
                                             int64_t classes);

// Writes the resolved sizes back, so that a run's job file shows them.
void FillTriposg(const TriposgConfig& config, Triposg& triposg);

}  // namespace trireme

#endif  // TRIREME_MODELS_TRIPOSG_TRIPOSG_CONFIG_H_
