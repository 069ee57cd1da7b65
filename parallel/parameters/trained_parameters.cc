#include "parallel/parameters/trained_parameters.h"

#include "parallel/parameters/name_pattern.h"

namespace trireme {

bool IsAdapterParameter(std::string_view parameter) {
  return parameter.ends_with(kInputFactor) ||
         parameter.ends_with(kOutputFactor) || parameter.ends_with(kMagnitude);
}

bool TrainedParameters::Trains(const std::string& parameter) const {
  switch (kind) {
    case Kind::kAll:
      return true;
    case Kind::kLayers: {
      const std::string layer = parameter.substr(0, parameter.rfind('.'));
      return (MatchesAny(layers, layer) || MatchesAny(layers, parameter)) &&
             !MatchesAny(except, layer) && !MatchesAny(except, parameter);
    }
    case Kind::kAdapters:
      return IsAdapterParameter(parameter);
  }
  return false;
}

bool TrainedParameters::Adapts(const std::string& layer) const {
  return kind == Kind::kAdapters && MatchesAny(layers, layer) &&
         !MatchesAny(except, layer);
}

}  // namespace trireme
