// Training now and then without what one of a text's encoders says, so that a
// model can be sampled without it (Esser et al., "Scaling rectified flow
// transformers", section 5.3.1).

#ifndef TRIREME_MODELS_DATA_ENCODER_DROPS_H_
#define TRIREME_MODELS_DATA_ENCODER_DROPS_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "models/batch.h"
#include "models/data/field_readers.h"

namespace trireme {

// What DroppedEncoder::Part calls the fields of all of a language model's
// layers.
inline constexpr char kTextLayersName[] = "text_layers";

struct DroppedEncoder {
  // What of a field of text states (kTextField, kPooledTextField or
  // kTextLayersName) comes from the encoder: tokens and channels
  // from a first one on; 0: all that follow. Of a vector all are channels.
  struct Part {
    std::string field;
    int64_t first_token = 0;
    int64_t tokens = 0;
    int64_t first_channel = 0;
    int64_t channels = 0;
  };
  std::string encoder;
  double probability = 0;
  std::vector<Part> parts;
};

// Sets to zero what the encoders that the sample at `position` loses made of
// element `index` of a batch's fields: each by a draw of its own, keyed by
// (seed, position, number of the drop).
void DropEncoders(std::span<const DroppedEncoder> drops, uint64_t seed,
                  uint64_t position, std::span<const FieldSpec> fields,
                  int64_t index, std::span<FieldValues> values);

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_ENCODER_DROPS_H_
