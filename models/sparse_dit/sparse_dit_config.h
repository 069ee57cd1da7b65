// Sizes of a sparse transformer, resolved: every field has its value.

#ifndef TRIREME_MODELS_SPARSE_DIT_SPARSE_DIT_CONFIG_H_
#define TRIREME_MODELS_SPARSE_DIT_SPARSE_DIT_CONFIG_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "models/sparse_dit/sparse_dit.pb.h"
#include "models/transformer/cross_condition.h"

namespace trireme {

// An MLP's channels over a token's.
inline constexpr int64_t kSparseDitMlpRatio = 4;

struct SparseDitConfig {
  int64_t hidden = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  // Of keys and values, in attention to tokens.
  int64_t key_heads = 0;
  // Large blocks that a token selects.
  int64_t top_k = 8;
  // Of a sample: the most tokens, their channels, and a side of their grid.
  int64_t tokens = 0;
  int64_t channels = 0;
  int64_t resolution = 0;
  CrossCondition condition;

  int64_t head_dim() const { return hidden / heads; }
  int64_t key_width() const { return key_heads * head_dim(); }
  int64_t mlp_hidden() const { return kSparseDitMlpRatio * hidden; }
  int64_t condition_width() const { return condition.width(hidden); }
};

// Fills presets and defaults, for samples of at most `tokens` tokens of
// `channels` on a grid of `resolution` a side. Errors name the field
// ("model.sparse_dit.hidden"), what was found and what was expected.
absl::StatusOr<SparseDitConfig> ResolveSparseDit(const SparseDit& model,
                                                 int64_t tokens,
                                                 int64_t channels,
                                                 int64_t resolution,
                                                 int64_t classes);

// Writes the resolved sizes back, so that a run's job file shows them.
void FillSparseDit(const SparseDitConfig& config, SparseDit& model);

}  // namespace trireme

#endif  // TRIREME_MODELS_SPARSE_DIT_SPARSE_DIT_CONFIG_H_
