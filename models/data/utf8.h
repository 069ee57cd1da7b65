// Whether text is UTF-8 (RFC 3629).

#ifndef TRIREME_MODELS_DATA_UTF8_H_
#define TRIREME_MODELS_DATA_UTF8_H_

#include <cstddef>
#include <string_view>

namespace trireme {

// The length of the longest beginning of `text` that is UTF-8: its size where
// all of it is. Overlong forms and surrogates are none.
size_t Utf8Prefix(std::string_view text);

inline bool IsUtf8(std::string_view text) {
  return Utf8Prefix(text) == text.size();
}

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_UTF8_H_
