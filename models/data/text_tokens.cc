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

namespace {

struct TextStates {
  uint32_t count = 0;
  uint32_t width = 0;
  std::vector<float> values;
};

absl::StatusOr<TextStates> Parse(std::string_view bytes) {
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
  TextStates states{.count = count,
                    .width = width,
                    .values = std::vector<float>(uint64_t{count} * width)};
  if (!states.values.empty()) {
    std::memcpy(states.values.data(), bytes.data() + sizeof(header),
                states.values.size() * sizeof(float));
  }
  for (const float value : states.values) {
    if (!std::isfinite(value)) {
      return InvalidArgument("text states with {}, expected finite numbers",
                             value);
    }
  }
  return states;
}

std::string Serialize(uint32_t count, uint32_t width,
                      const std::vector<float>& values) {
  const uint32_t header[2] = {count, width};
  CHECK_EQ(values.size(), uint64_t{count} * width);
  std::string bytes(sizeof(header) + values.size() * sizeof(float), '\0');
  std::memcpy(bytes.data(), header, sizeof(header));
  if (!values.empty()) {
    std::memcpy(bytes.data() + sizeof(header), values.data(),
                values.size() * sizeof(float));
  }
  return bytes;
}

}  // namespace

absl::Status ParseTextTokens(std::string_view bytes, Sample& sample) {
  ASSIGN_OR_RETURN(TextStates states, Parse(bytes));
  sample.text_tokens = std::move(states.values);
  sample.text_count = static_cast<int>(states.count);
  sample.text_width = static_cast<int>(states.width);
  return absl::OkStatus();
}

std::string SerializeTextTokens(const Sample& sample) {
  return Serialize(static_cast<uint32_t>(sample.text_count),
                   static_cast<uint32_t>(sample.text_width),
                   sample.text_tokens);
}

absl::Status ParseTextLayers(std::string_view bytes, Sample& sample) {
  ASSIGN_OR_RETURN(TextStates states, Parse(bytes));
  sample.text_layers = std::move(states.values);
  sample.text_layer_count = static_cast<int>(states.count);
  sample.text_layer_width = static_cast<int>(states.width);
  return absl::OkStatus();
}

std::string SerializeTextLayers(const Sample& sample) {
  return Serialize(static_cast<uint32_t>(sample.text_layer_count),
                   static_cast<uint32_t>(sample.text_layer_width),
                   sample.text_layers);
}

absl::Status ParsePooledText(std::string_view bytes, Sample& sample) {
  ASSIGN_OR_RETURN(TextStates states, Parse(bytes));
  if (states.count != 1) {
    return InvalidArgument("pooled text of {} tokens, expected one",
                           states.count);
  }
  sample.text_pooled = std::move(states.values);
  return absl::OkStatus();
}

std::string SerializePooledText(const Sample& sample) {
  return Serialize(1, static_cast<uint32_t>(sample.text_pooled.size()),
                   sample.text_pooled);
}

}  // namespace trireme
