// config.json of a folder of transformers': beside the class's arguments it has
// what the library notes of any model, and the names of the classes that the
// model tells apart in place of their number.

#ifndef TRIREME_MODELS_WEIGHTS_TRANSFORMERS_CONFIG_H_
#define TRIREME_MODELS_WEIGHTS_TRANSFORMERS_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/weights/name_table.h"
#include "nlohmann/json.hpp"
#include "runtime/core/dtype.h"

namespace trireme {

struct TransformersConfig {
  std::string class_name;
  // With num_labels, where the file says them.
  nlohmann::json arguments;
  // Empty: it says none.
  std::vector<std::string> class_names;
};

// Errors name the path and the field.
absl::StatusOr<TransformersConfig> ReadTransformersConfig(
    const std::string& path, const nlohmann::json& config);

// What the library calls classes that have no names: LABEL_0, LABEL_1, ...
std::vector<std::string> StandardClassNames(int64_t classes);

// The file's object, of a table of the library's and weights of `dtype`.
// `class_names`: empty, or as many as num_labels. As the library's, it leaves
// them out where they are those that the library gives as many as the class has
// by default.
nlohmann::json TransformersConfigOf(const NameTable& table,
                                    const std::vector<std::string>& class_names,
                                    DType dtype);

// The same text with its type replaced, and nothing else.
std::string WithDType(const std::string& config, DType dtype);

}  // namespace trireme

#endif  // TRIREME_MODELS_WEIGHTS_TRANSFORMERS_CONFIG_H_
