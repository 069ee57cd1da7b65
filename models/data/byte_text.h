// Captions for models that learn to read by themselves, without an encoder: a
// token is one byte of the UTF-8 text. Its state is two one-hot vectors, of the
// byte's value and of its place, so that the model's first linear layer is a
// table of bytes plus one of places. The pooled vector counts the words, and
// each word's runs of three bytes, by hash (Bojanowski et al., "Enriching Word
// Vectors with Subword Information", 2017), so that a linear layer can tell a
// word by itself, and words of one stem are near each other.

#ifndef TRIREME_MODELS_DATA_BYTE_TEXT_H_
#define TRIREME_MODELS_DATA_BYTE_TEXT_H_

#include <cstdint>
#include <span>
#include <string_view>

namespace trireme {

inline constexpr int64_t kByteValues = 256;

// Channels of the pooled vector, each shared by the words of one hash.
inline constexpr int64_t kPooledByteTextWidth = 2048;

// Channels of a token's state where a text has at most `tokens`.
inline int64_t ByteTextWidth(int64_t tokens) { return kByteValues + tokens; }

// The longest beginning of the caption with whole characters and at most
// `tokens` bytes.
std::string_view ByteTextOf(std::string_view caption, int64_t tokens);

// Fills [tokens, ByteTextWidth(tokens)], with zeros behind the text.
void FillByteText(std::string_view caption, int64_t tokens,
                  std::span<float> states);

// Fills [kPooledByteTextWidth], of the whole caption: a mean square of one, as
// encoders' vectors have about, or zeros where no word is.
void FillPooledByteText(std::string_view caption, std::span<float> pooled);

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_BYTE_TEXT_H_
