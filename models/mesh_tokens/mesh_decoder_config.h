// Sizes of a model of meshes' tokens, resolved: every field has its value.

#ifndef TRIREME_MODELS_MESH_TOKENS_MESH_DECODER_CONFIG_H_
#define TRIREME_MODELS_MESH_TOKENS_MESH_DECODER_CONFIG_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "models/mesh_tokens/mesh_tokens.h"
#include "models/mesh_tokens/mesh_tokens.pb.h"

namespace trireme {

// An MLP's channels over a token's.
inline constexpr int64_t kMeshDecoderMlpRatio = 4;

struct MeshDecoderConfig {
  int64_t hidden = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  // Of a sequence, the end included, padding too.
  int64_t tokens = 0;
  MeshTokenFormat format;
  // 0: samples have none.
  int64_t classes = 0;

  int64_t head_dim() const { return hidden / heads; }
  int64_t mlp_hidden() const { return kMeshDecoderMlpRatio * hidden; }
  int64_t vocabulary() const { return format.vocabulary(); }
};

// Fills presets and defaults, for sequences of `tokens` tokens of the format.
// Errors name the field ("model.mesh_tokens.hidden"), what was found and what
// was expected.
absl::StatusOr<MeshDecoderConfig> ResolveMeshTokens(
    const MeshTokens& model, const MeshTokenFormat& format, int64_t tokens,
    int64_t classes);

// Writes the resolved sizes back, so that a run's job file shows them.
void FillMeshTokens(const MeshDecoderConfig& config, MeshTokens& model);

}  // namespace trireme

#endif  // TRIREME_MODELS_MESH_TOKENS_MESH_DECODER_CONFIG_H_
