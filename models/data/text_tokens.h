// Precomputed text states in a file: a little-endian uint32 n (tokens), a
// uint32 w (width), then n·w little-endian IEEE floats, token by token.

#ifndef TRIREME_MODELS_DATA_TEXT_TOKENS_H_
#define TRIREME_MODELS_DATA_TEXT_TOKENS_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "models/data/dataset.h"

namespace trireme {

// Bounds of what is read.
inline constexpr uint32_t kMaxTextTokens = 4096;
inline constexpr uint32_t kMaxTextWidth = 16384;

// Fills the text fields of `sample`. Errors: another length than the header
// says, sizes beyond the bounds, values that are not finite.
absl::Status ParseTextTokens(std::string_view bytes, Sample& sample);

std::string SerializeTextTokens(const Sample& sample);

// The same for the states of a language model's layers, one layer's tokens
// after the other's.
absl::Status ParseTextLayers(std::string_view bytes, Sample& sample);
std::string SerializeTextLayers(const Sample& sample);

// The same for the pooled vector, a file of one token. Errors: another number
// of tokens, too.
absl::Status ParsePooledText(std::string_view bytes, Sample& sample);
std::string SerializePooledText(const Sample& sample);

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_TEXT_TOKENS_H_
