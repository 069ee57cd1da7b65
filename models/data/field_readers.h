// How a sample becomes the elements of a batch's fields: one reader a field.

#ifndef TRIREME_MODELS_DATA_FIELD_READERS_H_
#define TRIREME_MODELS_DATA_FIELD_READERS_H_

#include <cstdint>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "models/batch.h"
#include "models/data/dataset.h"

namespace trireme {

// The elements of one field of a whole batch, sample by sample.
using FieldValues = std::variant<std::vector<float>, std::vector<int32_t>>;

struct FieldReader {
  std::string_view name;
  // What it needs of a sample.
  SampleParts parts;
  // Writes the elements of sample `index` of the batch. An error is the job's
  // and no damage of the sample: no other sample could take its place.
  absl::Status (*read)(const Sample& sample, const FieldSpec& spec,
                       int64_t index, FieldValues& values);
};

// The reader of the field's name; CHECKs that there is one and that the field
// is of the type and rank that it fills.
const FieldReader& ReaderOf(const FieldSpec& spec);

// What the fields need of a sample, together.
SampleParts PartsOf(std::span<const FieldSpec> fields);

// The fields of pictures of `size`.
std::vector<FieldSpec> FieldsAt(std::span<const FieldSpec> fields,
                                const PictureSize& size);

// Zeros for `samples` samples.
FieldValues ZeroValues(const FieldSpec& spec, int64_t samples);

// Reads the first samples of the data set and refuses a job whose fields
// cannot be filled from them, before it starts. Errors name the job's field,
// what was found and what was expected. Samples that cannot be read, or lack
// what a field holds, are passed over. Of a data set in buckets each is read at
// its own size.
absl::Status CheckFields(const Dataset& dataset,
                         std::span<const FieldSpec> fields);

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_FIELD_READERS_H_
