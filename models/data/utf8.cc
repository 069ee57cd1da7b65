#include "models/data/utf8.h"

#include <cstdint>

namespace trireme {
namespace {

// A character's form: the bits of its first byte, and the least code point that
// needs so many bytes.
struct Form {
  uint8_t mask;
  uint8_t first;
  size_t bytes;
  uint32_t least;
};

constexpr Form kForms[] = {{0x80, 0x00, 1, 0},
                           {0xe0, 0xc0, 2, 0x80},
                           {0xf0, 0xe0, 3, 0x800},
                           {0xf8, 0xf0, 4, 0x10000}};

// The bytes of the character that `text` begins with; 0: it begins with none.
size_t CharacterBytes(std::string_view text) {
  const auto first = static_cast<uint8_t>(text[0]);
  for (const Form& form : kForms) {
    if ((first & form.mask) != form.first) continue;
    if (text.size() < form.bytes) return 0;
    uint32_t code = first & static_cast<uint8_t>(~form.mask);
    for (size_t i = 1; i < form.bytes; ++i) {
      const auto next = static_cast<uint8_t>(text[i]);
      if ((next & 0xc0) != 0x80) return 0;
      code = code << 6 | (next & 0x3f);
    }
    const bool surrogate = code >= 0xd800 && code <= 0xdfff;
    return code < form.least || code > 0x10ffff || surrogate ? 0 : form.bytes;
  }
  return 0;
}

}  // namespace

size_t Utf8Prefix(std::string_view text) {
  size_t prefix = 0;
  while (prefix < text.size()) {
    const size_t bytes = CharacterBytes(text.substr(prefix));
    if (bytes == 0) break;
    prefix += bytes;
  }
  return prefix;
}

}  // namespace trireme
