#include "models/data/sample_files.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdint>
#include <fstream>

#include "models/data/utf8.h"
#include "nlohmann/json.hpp"
#include "runtime/core/status.h"

namespace trireme {
namespace {

std::string_view Trimmed(std::string_view text) {
  constexpr std::string_view kWhite = " \t\r\n";
  const size_t first = text.find_first_not_of(kWhite);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kWhite) - first + 1);
}

// nlohmann's parser recurses for nested values; captions need no depth.
constexpr int kMaxJsonDepth = 16;

}  // namespace

absl::StatusOr<std::string> ReadFileStart(const std::string& path,
                                          int64_t most) {
  std::ifstream file(path, std::ios::binary);
  if (!file.is_open()) return NotFound("{}: cannot be read", path);
  std::string bytes(static_cast<size_t>(most), '\0');
  file.read(bytes.data(), most);
  bytes.resize(static_cast<size_t>(file.gcount()));
  return bytes;
}

bool IsImageEnding(std::string_view ending) {
  std::string lower(ending);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return lower == "png" || lower == "jpg" || lower == "jpeg" || lower == "webp";
}

absl::StatusOr<std::string> ParseCaption(std::string_view text) {
  const std::string_view caption = Trimmed(text);
  const size_t utf8 = Utf8Prefix(caption);
  if (utf8 == caption.size()) return std::string(caption);
  return DataLoss(
      "found the byte {:#x} after {} bytes of text, expected a caption in "
      "UTF-8",
      static_cast<uint8_t>(caption[utf8]), utf8);
}

absl::StatusOr<std::string> ParseJsonCaption(std::string_view json) {
  bool too_deep = false;
  const auto watch_depth = [&too_deep](int depth, auto, auto&) {
    too_deep |= depth > kMaxJsonDepth;
    return !too_deep;
  };
  const nlohmann::json object = nlohmann::json::parse(
      json.begin(), json.end(), watch_depth, /*allow_exceptions=*/false);
  if (too_deep || !object.is_object()) {
    return DataLoss("not a JSON object (nested at most {} deep)",
                    kMaxJsonDepth);
  }
  for (const char* name : {"caption", "text"}) {
    const auto found = object.find(name);
    if (found == object.end() || found->is_null()) continue;
    if (!found->is_string()) {
      return DataLoss("\"{}\" is a {}, expected a string", name,
                      found->type_name());
    }
    return ParseCaption(found->get_ref<const std::string&>());
  }
  return std::string();
}

absl::StatusOr<int32_t> ParseClassId(std::string_view text) {
  const std::string_view digits = Trimmed(text);
  int32_t value = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size() ||
      value < 0) {
    return DataLoss("class \"{}\", expected a number from 0",
                    digits.substr(0, 40));
  }
  return value;
}

}  // namespace trireme
