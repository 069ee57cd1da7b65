#include "models/data/byte_text.h"

#include <algorithm>

#include "runtime/core/log.h"

namespace trireme {
namespace {

// Bytes of a UTF-8 character behind its first one.
bool Continues(char byte) { return (static_cast<uint8_t>(byte) >> 6) == 2; }

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
  CHECK_EQ(static_cast<int64_t>(pooled.size()), kByteValues);
  std::fill(pooled.begin(), pooled.end(), 0.0F);
  for (const char byte : caption) {
    pooled[static_cast<uint8_t>(byte)] +=
        1.0F / static_cast<float>(caption.size());
  }
}

}  // namespace trireme
