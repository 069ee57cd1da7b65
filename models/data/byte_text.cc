#include "models/data/byte_text.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "fmt/format.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"

namespace trireme {
namespace {

// Bytes of a UTF-8 character behind its first one.
bool Continues(char byte) { return (static_cast<uint8_t>(byte) >> 6) == 2; }

constexpr std::string_view kBetweenWords = " \t\r\n.,:;!?()\"";

}  // namespace

std::string_view ByteTextOf(std::string_view caption, int64_t tokens) {
  auto end = static_cast<size_t>(tokens);
  if (caption.size() <= end) return caption;
  while (end > 0 && Continues(caption[end])) --end;
  return caption.substr(0, end);
}

void FillByteText(std::string_view caption, int64_t tokens,
                  std::span<float> states) {
  const int64_t width = ByteTextWidth(tokens);
  CHECK_EQ(static_cast<int64_t>(states.size()), tokens * width);
  std::fill(states.begin(), states.end(), 0.0F);
  int64_t place = 0;
  for (const char byte : ByteTextOf(caption, tokens)) {
    states[place * width + static_cast<uint8_t>(byte)] = 1;
    states[place * width + kByteValues + place] = 1;
    ++place;
  }
}

void FillPooledByteText(std::string_view caption, std::span<float> pooled) {
  CHECK_EQ(static_cast<int64_t>(pooled.size()), kPooledByteTextWidth);
  std::fill(pooled.begin(), pooled.end(), 0.0F);
  const auto count = [&](std::string_view bytes) {
    pooled[StableHash(bytes) % pooled.size()] += 1;
  };
  std::string_view rest = caption;
  while (!rest.empty()) {
    const std::string_view word =
        rest.substr(0, rest.find_first_of(kBetweenWords));
    rest.remove_prefix(std::min(rest.size(), word.size() + 1));
    if (word.empty()) continue;
    // With its ends marked, a word's beginning is no other word's middle.
    const std::string marked = fmt::format("<{}>", word);
    count(marked);
    for (size_t at = 0; at + 3 <= marked.size(); ++at) {
      count(std::string_view(marked).substr(at, 3));
    }
  }
  const float squares =
      std::inner_product(pooled.begin(), pooled.end(), pooled.begin(), 0.0F);
  if (squares == 0) return;
  const float scale =
      std::sqrt(static_cast<float>(kPooledByteTextWidth) / squares);
  for (float& channel : pooled) channel *= scale;
}

}  // namespace trireme
