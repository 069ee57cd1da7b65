#include "models/data/text_tokens.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {

static_assert(std::endian::native == std::endian::little,
              "the file's byte order is taken as it is");

absl::Status ParseTextTokens(std::string_view bytes, Sample& sample) {
  uint32_t header[2];
  if (bytes.size() < sizeof(header)) {
    return DataLoss("text states of {} bytes, expected at least {}",
                    bytes.size(), sizeof(header));
  }
  std::memcpy(header, bytes.data(), sizeof(header));
  const auto [count, width] = header;
  if (count > kMaxTextTokens || width > kMaxTextWidth) {
    return InvalidArgument(
        "text states of {} tokens of width {}, expected at most {} of width {}",
        count, width, kMaxTextTokens, kMaxTextWidth);
  }
  const uint64_t expected =
      sizeof(header) + uint64_t{count} * width * sizeof(float);
  if (bytes.size() != expected) {
    return DataLoss(
        "text states of {} bytes, expected {} for {} tokens of width {}",
        bytes.size(), expected, count, width);
  }
  std::vector<float> tokens(uint64_t{count} * width);
  if (!tokens.empty()) {
    std::memcpy(tokens.data(), bytes.data() + sizeof(header),
                tokens.size() * sizeof(float));
  }
  for (const float value : tokens) {
    if (!std::isfinite(value)) {
      return InvalidArgument("text states with {}, expected finite numbers",
                             value);
    }
  }
  sample.text_tokens = std::move(tokens);
  sample.text_count = static_cast<int>(count);
  sample.text_width = static_cast<int>(width);
  return absl::OkStatus();
}

std::string SerializeTextTokens(const Sample& sample) {
  const uint32_t header[2] = {static_cast<uint32_t>(sample.text_count),
                              static_cast<uint32_t>(sample.text_width)};
  CHECK_EQ(sample.text_tokens.size(), uint64_t{header[0]} * header[1]);
  std::string bytes(sizeof(header) + sample.text_tokens.size() * sizeof(float),
                    '\0');
  std::memcpy(bytes.data(), header, sizeof(header));
  if (!sample.text_tokens.empty()) {
    std::memcpy(bytes.data() + sizeof(header), sample.text_tokens.data(),
                sample.text_tokens.size() * sizeof(float));
  }
  return bytes;
}

}  // namespace trireme
