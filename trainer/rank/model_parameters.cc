#include "trainer/rank/model_parameters.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "parallel/grid/process_grid.h"
#include "parallel/parameters/name_pattern.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

// Some names that a pattern could have meant.
constexpr size_t kNamesShown = 8;

// Errors name the first pattern of the field that no linear layer is named,
// nor, if `parameters_too`, a parameter.
absl::Status CheckPatterns(const char* field,
                           const std::vector<std::string>& patterns,
                           const std::vector<NamedShape>& all,
                           bool parameters_too) {
  for (const std::string& pattern : patterns) {
    const bool known =
        std::any_of(all.begin(), all.end(), [&](const NamedShape& parameter) {
          TrainedParameters one = {.kind = TrainedParameters::Kind::kLayers,
                                   .layers = {pattern}};
          if (parameters_too) return one.Trains(parameter.name);
          one.kind = TrainedParameters::Kind::kAdapters;
          constexpr std::string_view kWeight = ".weight";
          return parameter.name.ends_with(kWeight) &&
                 parameter.shape.rank() > 1 &&
                 one.Adapts(parameter.name.substr(
                     0, parameter.name.size() - kWeight.size()));
        });
    if (known) continue;
    std::vector<std::string> names;
    for (const NamedShape& parameter : all) {
      if (parameter.name.starts_with("blocks.0.") &&
          parameter.name.ends_with(".weight") && names.size() < kNamesShown) {
        names.push_back(parameter.name.substr(0, parameter.name.rfind('.')));
      }
    }
    return InvalidArgument(
        "{}: found '{}', which no layer is named, expected patterns as "
        "'blocks.*'; some layers: {}",
        field, pattern, fmt::join(names, ", "));
  }
  return absl::OkStatus();
}

// What the whole model makes.
template <typename F>
void WithParameters(const ModelFamily& family, const TrainedParameters& trained,
                    const Float8Layers& float8, F&& f) {
  CpuDevice device(std::numeric_limits<int64_t>::max(), CpuDevice::Mode::kDry);
  ParameterStore store(device, DType::kFloat32, /*seed=*/0,
                       ParameterStore::Allocate::kAll, trained, float8);
  const ProcessGrid grid;
  const StepInputs inputs;
  const auto chunk =
      family.Build({.blocks = {0, family.Shape().layers}}, store, grid, inputs);
  f(store);
}

// Of layers that can multiply in FP8, which experts cannot.
std::vector<NamedShape> Float8Weights(const ModelFamily& family) {
  Float8Layers every;
  every.layers = {"*"};
  std::vector<NamedShape> weights;
  WithParameters(family, {}, every, [&](const ParameterStore& store) {
    for (const auto& parameter : store.parameters()) {
      if (!parameter->float8_products) continue;
      weights.push_back({parameter->name, parameter->global_shape});
    }
  });
  return weights;
}

}  // namespace

ParameterList ParametersOf(const ModelFamily& family,
                           const TrainedParameters& trained) {
  ParameterList parameters;
  WithParameters(family, trained, {}, [&](const ParameterStore& store) {
    for (const auto& parameter : store.parameters()) {
      const int64_t elements = parameter->global_shape.num_elements();
      parameters.all.push_back({parameter->name, parameter->global_shape});
      parameters.elements += elements;
      if (!parameter->trainable) continue;
      parameters.trained.push_back(parameter->name);
      parameters.trained_elements += elements;
    }
    parameters.adapters = store.adapters();
  });
  return parameters;
}

absl::Status CheckTrained(const ModelFamily& family,
                          const TrainedParameters& trained) {
  if (trained.all()) return absl::OkStatus();
  const std::vector<NamedShape> all = ParametersOf(family, {}).all;
  const bool parameters_too = trained.kind == TrainedParameters::Kind::kLayers;
  RETURN_IF_ERROR(
      CheckPatterns("train.layers", trained.layers, all, parameters_too));
  std::vector<std::string> except = trained.except;
  std::erase(except, kLeftOutByDefault);
  RETURN_IF_ERROR(CheckPatterns("train.except", except, all, parameters_too));
  if (ParametersOf(family, trained).trained_elements > 0) {
    return absl::OkStatus();
  }
  return InvalidArgument(
      "train.except: found patterns of all of train.layers ({}), expected some "
      "to be left",
      fmt::join(trained.layers, ", "));
}

absl::Status CheckFloat8(const ModelFamily& family,
                         const Float8Layers& layers) {
  if (layers.layers.empty()) return absl::OkStatus();
  const std::vector<NamedShape> all = Float8Weights(family);
  RETURN_IF_ERROR(CheckPatterns("fp8.layers", layers.layers, all,
                                /*parameters_too=*/false));
  std::vector<std::string> except = layers.except;
  for (const char* const pattern : kNotInFloat8ByDefault) {
    std::erase(except, pattern);
  }
  RETURN_IF_ERROR(CheckPatterns("fp8.except", except,
                                ParametersOf(family, {}).all,
                                /*parameters_too=*/false));
  const bool any =
      std::any_of(all.begin(), all.end(), [&](const NamedShape& weight) {
        return layers.Has(weight.name.substr(0, weight.name.rfind('.')));
      });
  if (any) return absl::OkStatus();
  return InvalidArgument(
      "fp8.except: found '{}', which leaves out every layer of '{}', expected "
      "fewer",
      fmt::join(layers.except, ", "), fmt::join(layers.layers, ", "));
}

absl::Status CheckGroups(const ModelFamily& family,
                         const TrainedParameters& trained,
                         const std::vector<ParameterGroup>& groups) {
  if (groups.empty()) return absl::OkStatus();
  const std::vector<std::string> names = ParametersOf(family, trained).trained;
  for (size_t i = 0; i < groups.size(); ++i) {
    const std::string& pattern = groups[i].match;
    const bool known = std::any_of(
        names.begin(), names.end(),
        [&](const std::string& name) { return Matches(pattern, name); });
    if (known) continue;
    return InvalidArgument(
        "optimizer.groups[{}].match: found '{}', which no parameter is named "
        "that trains, expected patterns as '*.bias'; some parameters: {}",
        i, pattern,
        fmt::join(names.begin(),
                  names.begin() +
                      static_cast<int64_t>(std::min(names.size(), kNamesShown)),
                  ", "));
  }
  return absl::OkStatus();
}

}  // namespace trireme
