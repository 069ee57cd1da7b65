// What a transformer is evaluated at, as files have it, with the names and
// layouts of the ecosystem's classes:
//
//   hidden_states          [n, c, h, w], or packed patches [n, tokens, c·p·p]
//                          with img_ids [tokens, 3]: 0, row, column
//   timestep               [n], where the model knows times
//   encoder_hidden_states  [n, text tokens, width]; with packed patches
//                          txt_ids [text tokens, 3]: zeros
//   pooled_projections     [n, width]
//   encoder_hidden_states_llama3
//                          [layers, n, text tokens, width]
//   guidance               [n], where the model has it
//   class_labels           integers [n]
//   cotangent              as the output, for gradients
//
// or as ModelFamily::Call names them.
// Values are F32, F16, BF16 or F64, numbers of classes and ids also I32 or I64.

#ifndef TRIREME_TRAINER_FORWARD_CLASS_INPUTS_H_
#define TRIREME_TRAINER_FORWARD_CLASS_INPUTS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/batch.h"
#include "models/family.h"
#include "runtime/core/shape.h"
#include "runtime/device/device.h"

namespace trireme {

inline constexpr char kCotangentField[] = "cotangent";

// A field's values on the host, sample by sample.
struct HostField {
  Shape shape;  // [n, ..]
  std::vector<double> values;
};

struct ClassInputs {
  // The model at these sizes.
  std::shared_ptr<const ModelFamily> family;
  int64_t samples = 0;
  // By the names that families read (models/batch.h), kTimeField where the
  // model knows times and, where gradients are wanted, kCotangentField.
  std::map<std::string, HostField> fields;
};

// Errors name the file, the tensor, what was found and what was expected.
absl::StatusOr<ClassInputs> ReadClassInputs(const std::string& path,
                                            const ModelFamily& family,
                                            bool cotangent);

// Samples [begin, end) on the device.
Batch BatchOf(const ClassInputs& inputs, Device& device, int64_t begin,
              int64_t end);

// What the class calls a field; empty: nothing that has a gradient.
std::string ClassNameOf(const std::string& field, const ClassCall& call);
// Pictures [n, c, h, w] as the class has them, and its output of a prediction.
HostField AsClassHas(const HostField& pictures, const ClassCall& call);
HostField OutputOf(HostField prediction, const ClassCall& call);

}  // namespace trireme

#endif  // TRIREME_TRAINER_FORWARD_CLASS_INPUTS_H_
