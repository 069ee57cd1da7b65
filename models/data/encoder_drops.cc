#include "models/data/encoder_drops.h"

#include <algorithm>

#include "runtime/core/philox.h"

namespace trireme {
namespace {

// The end of `count` from `first` on, of `extent`; 0: all of them.
int64_t End(int64_t first, int64_t count, int64_t extent) {
  return count > 0 ? std::min(first + count, extent) : extent;
}

void Clear(const DroppedEncoder::Part& part, const FieldSpec& spec,
           int64_t index, FieldValues& values) {
  const int64_t tokens = spec.shape.rank() == 2 ? spec.shape.dim(0) : 1;
  const int64_t channels = spec.shape.num_elements() / tokens;
  const int64_t end = End(part.first_channel, part.channels, channels);
  const auto element = std::get<std::vector<float>>(values).begin() +
                       index * spec.shape.num_elements();
  for (int64_t t = part.first_token;
       t < End(part.first_token, part.tokens, tokens); ++t) {
    for (int64_t c = part.first_channel; c < end; ++c) {
      element[t * channels + c] = 0;
    }
  }
}

// A language model's layers are one field of the job.
bool IsOf(const FieldSpec& spec, const DroppedEncoder::Part& part) {
  return spec.name == part.field ||
         (spec.num_layers > 0 && part.field == kTextLayersName);
}

}  // namespace

void DropEncoders(std::span<const DroppedEncoder> drops, uint64_t seed,
                  uint64_t position, std::span<const FieldSpec> fields,
                  int64_t index, std::span<FieldValues> values) {
  for (size_t d = 0; d < drops.size(); ++d) {
    // Objectives draw for step 1 and on.
    const RandomStream stream({.seed = seed,
                               .sample = position,
                               .layer = static_cast<uint16_t>(d),
                               .purpose = RandomPurpose::kConditionDrop});
    if (stream.Uniform(0) >= drops[d].probability) continue;
    for (const DroppedEncoder::Part& part : drops[d].parts) {
      for (size_t f = 0; f < fields.size(); ++f) {
        if (IsOf(fields[f], part)) Clear(part, fields[f], index, values[f]);
      }
    }
  }
}

}  // namespace trireme
