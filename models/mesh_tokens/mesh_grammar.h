// The grammar of a mesh's tokens (mesh_tokens.h): what is drawn under it are
// whole fans with faces, and an end.

#ifndef TRIREME_MODELS_MESH_TOKENS_MESH_GRAMMAR_H_
#define TRIREME_MODELS_MESH_TOKENS_MESH_GRAMMAR_H_

#include "models/mesh_tokens/mesh_tokens.h"
#include "models/sampling/token_grammar.h"

namespace trireme {

class MeshGrammar final : public TokenGrammar {
 public:
  explicit MeshGrammar(const MeshTokenFormat& format) : format_(format) {}

  int64_t vocabulary() const override { return format_.vocabulary(); }
  int32_t end() const override { return format_.end(); }
  // `left` of an empty sequence is kShortestMeshSequence at least.
  std::vector<TokenInterval> Next(std::span<const int32_t> sequence,
                                  int64_t left) const override;

 private:
  MeshTokenFormat format_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_MESH_TOKENS_MESH_GRAMMAR_H_
