#include "models/shape/furniture_catalog.h"

#include <cstdint>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace trireme {
namespace {

void AppendUtf8(uint32_t code, std::string& out) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | code >> 6);
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    out += static_cast<char>(0xE0 | code >> 12);
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

// A value as properties files write it: Latin-1 with \uXXXX for the rest and a
// backslash before signs.
std::string Unescaped(absl::string_view value) {
  std::string text;
  for (size_t i = 0; i < value.size(); ++i) {
    uint32_t code = static_cast<unsigned char>(value[i]);
    if (value[i] == '\\' && i + 1 < value.size()) {
      ++i;
      code = static_cast<unsigned char>(value[i]);
      uint32_t hex = 0;
      if (value[i] == 'u' && i + 4 < value.size() &&
          absl::SimpleHexAtoi(value.substr(i + 1, 4), &hex)) {
        // Half of a pair, which catalogues have no use for.
        code = hex >= 0xD800 && hex < 0xE000 ? '?' : hex;
        i += 4;
      }
    }
    AppendUtf8(code, text);
  }
  return text;
}

}  // namespace

std::vector<FurniturePiece> ParseFurnitureCatalog(std::string_view text) {
  std::map<int64_t, FurniturePiece> pieces;
  for (absl::string_view line :
       absl::StrSplit(absl::string_view(text.data(), text.size()), '\n')) {
    const std::pair<absl::string_view, absl::string_view> property =
        absl::StrSplit(line, absl::MaxSplits('=', 1));
    const std::pair<absl::string_view, absl::string_view> key =
        absl::StrSplit(property.first, absl::MaxSplits('#', 1));
    int64_t number = 0;
    if (!absl::SimpleAtoi(key.second, &number)) continue;
    const absl::string_view field = absl::StripAsciiWhitespace(key.first);
    const std::string value =
        Unescaped(absl::StripAsciiWhitespace(property.second));
    FurniturePiece& piece = pieces[number];
    if (field == "name") piece.name = value;
    if (field == "category") piece.category = value;
    // Names in the archive are given from its root.
    if (field == "model")
      piece.model = std::string(absl::StripPrefix(value, "/"));
    if (field == "icon")
      piece.icon = std::string(absl::StripPrefix(value, "/"));
  }
  std::vector<FurniturePiece> found;
  for (const auto& [number, piece] : pieces) {
    if (!piece.model.empty()) found.push_back(piece);
  }
  return found;
}

}  // namespace trireme
