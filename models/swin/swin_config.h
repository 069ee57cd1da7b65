// Sizes of a Swin Transformer V2, resolved: every field has its value.

#ifndef TRIREME_MODELS_SWIN_SWIN_CONFIG_H_
#define TRIREME_MODELS_SWIN_SWIN_CONFIG_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "models/swin/swin.pb.h"
#include "moe/moe_config.h"
#include "runtime/ops/window_attention.h"

namespace trireme {

struct SwinConfig {
  struct Stage {
    int64_t blocks = 0;
    int64_t heads = 0;
    // Of the windows that its biases were learnt in; 0: of `window`.
    int64_t learnt_window = 0;
  };
  std::vector<Stage> stages;
  int64_t patch = 4;
  // Channels of the first stage's tokens, and of its MLPs and experts; each
  // stage has twice those of the one before.
  int64_t hidden = 0;
  int64_t mlp_hidden = 0;
  std::optional<MoeConfig> moe;
  // Of each of the last `expert_stages` stages blocks n, 2n, .. have experts.
  int64_t expert_every = 2;
  int64_t expert_stages = 0;
  int64_t window = 7;
  // Of samples, that the last block's branches are left out of.
  double drop_path = 0;
  // Of the pictures, which are squares.
  int64_t channels = 1;
  int64_t side = 0;
  int64_t classes = 0;

  int64_t num_stages() const { return static_cast<int64_t>(stages.size()); }
  int64_t layers() const;
  // Of a stage.
  int64_t HiddenOf(int64_t stage) const { return hidden << stage; }
  int64_t TokensAlong(int64_t stage) const { return side / patch >> stage; }
  int64_t TokensOf(int64_t stage) const {
    return TokensAlong(stage) * TokensAlong(stage);
  }
};

// Channels inside the MLP that gives the biases of a block's scores.
inline constexpr int64_t kSwinBiasHidden = 512;

// One of the model's blocks.
struct SwinBlockSizes {
  int64_t stage = 0;
  // Whether it is the first of a later stage, before which tokens are merged.
  bool merges = false;
  int64_t hidden = 0;
  int64_t heads = 0;
  int64_t mlp_hidden = 0;
  double drop_path = 0;
  // In parts of which distances are counted.
  int64_t learnt_window = 0;
  WindowLayout windows;
  std::optional<MoeConfig> moe;

  int64_t tokens() const { return windows.height * windows.width; }
};
SwinBlockSizes SizesOfBlock(const SwinConfig& config, int64_t block);

// Fills presets and defaults, for square pictures of `side` pixels. Errors name
// the field ("model.swin.hidden"), what was found and what was expected.
absl::StatusOr<SwinConfig> ResolveSwin(const Swin& swin, int64_t channels,
                                       int64_t side, int64_t classes);

// Writes the resolved sizes back, so that a run's job file shows them.
void FillSwin(const SwinConfig& config, Swin& swin);

}  // namespace trireme

#endif  // TRIREME_MODELS_SWIN_SWIN_CONFIG_H_
