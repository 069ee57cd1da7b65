// Classes of the ecosystem's models, as models of ours: what config.json says,
// read. The table of names of the model that comes of it
// (models/weights/name_table.h) writes it.

#ifndef TRIREME_MODELS_WEIGHTS_MODEL_CLASS_H_
#define TRIREME_MODELS_WEIGHTS_MODEL_CLASS_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "models/data_format.h"
#include "models/model.pb.h"
#include "nlohmann/json_fwd.hpp"

namespace trireme {

struct DescribedModel {
  Model model;
  DataFormat data;
  // Where they are known.
  std::vector<std::string> class_names;
};

// Of an object of arguments the member with those that say nothing of what a
// trained model computes: no two are compared.
inline constexpr char kNotedArguments[] = "_noted";

struct ModelClass {
  std::string_view name;
  // A JSON object: every argument of the constructor with its default, which is
  // of the argument's type. A list holds whole numbers; null stands for a name
  // or a number, among kNotedArguments for anything.
  std::string_view arguments;
  // From all arguments, of these types. Values that no model of ours has are
  // found later, when the model's own table differs.
  DescribedModel (*read)(const nlohmann::json& arguments);
  // The argument that says the pictures' channels.
  std::string_view channels = "in_channels";
};

// Every argument of the class, from a config.json at `path`; what is left out
// has its default. Errors name the path and the argument.
absl::StatusOr<nlohmann::json> CompleteArguments(const std::string& path,
                                                 const nlohmann::json& config,
                                                 const ModelClass& model_class);

// An error where `found` and `expected`, both complete, differ: it names the
// path and the first such argument, and ends with `why` it is expected so. A
// null out_channels is in_channels, as in all classes.
absl::Status CompareArguments(const std::string& path, nlohmann::json found,
                              nlohmann::json expected, std::string_view why);

}  // namespace trireme

#endif  // TRIREME_MODELS_WEIGHTS_MODEL_CLASS_H_
