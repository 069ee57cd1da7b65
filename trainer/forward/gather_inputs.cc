#include "trainer/forward/gather_inputs.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

// Whether this rank's part is one that no other rank has.
bool IsOwn(const AxisStates& states, const ProcessGrid& grid) {
  for (const Axis axis : {Axis::kTensor, Axis::kContext}) {
    if (states[axis].kind != AxisState::Kind::kShard &&
        grid.coordinate(axis) != 0) {
      return false;
    }
  }
  return true;
}

std::string Packed(const InputGradients& gradients, const ProcessGrid& grid,
                   int64_t first_sample) {
  Json list = Json::array();
  for (const InputGradients::Part& part : gradients.parts()) {
    if (!IsOwn(part.states, grid)) continue;
    const Tensor values = part.gradient.dtype() == DType::kFloat64
                              ? part.gradient
                              : Cast(part.gradient, DType::kFloat64);
    // [samples, tokens, channels]; a vector of a sample is one token.
    const Shape& shape = values.shape();
    list.push_back({part.field, first_sample + part.first_sample,
                    part.first_token, shape.dim(0),
                    shape.rank() == 3 ? shape.dim(1) : 1,
                    values.ToVector<double>()});
  }
  const std::vector<uint8_t> bytes = Json::to_cbor(list);
  return {bytes.begin(), bytes.end()};
}

// [n, tokens, channels] of a field.
struct Tokens {
  int64_t samples = 0;
  int64_t tokens = 0;
  int64_t channels = 0;
  std::vector<double> values;

  // Adds a part: one input may be read in several places. Tokens beyond the
  // last are padding.
  void Place(const Json& part) {
    const int64_t first_sample = part[1].get<int64_t>();
    const int64_t first_token = part[2].get<int64_t>();
    const int64_t rows = part[4].get<int64_t>();
    const auto& given = part[5].get_ref<const Json::array_t&>();
    for (int64_t i = 0; i < part[3].get<int64_t>(); ++i) {
      for (int64_t t = 0; t < std::min(rows, tokens - first_token); ++t) {
        for (int64_t c = 0; c < channels; ++c) {
          values[((first_sample + i) * tokens + first_token + t) * channels +
                 c] += given[(i * rows + t) * channels + c].get<double>();
        }
      }
    }
  }
};

// [layers, n, tokens, width], zeros for layers that are not read.
void AddTextLayers(const std::map<std::string, Tokens>& whole,
                   const ModelFamily& family,
                   std::map<std::string, HostField>& named) {
  const std::string name(family.Call().text_layers);
  for (const FieldSpec& spec : AllFields(family)) {
    const auto of_layer = whole.find(spec.name);
    if (spec.num_layers == 0 || of_layer == whole.end()) continue;
    const Tokens& tokens = of_layer->second;
    HostField& all = named[name];
    if (all.values.empty()) {
      all.shape = {spec.num_layers, tokens.samples, tokens.tokens,
                   tokens.channels};
      all.values.resize(all.shape.num_elements());
    }
    std::copy(tokens.values.begin(), tokens.values.end(),
              all.values.begin() +
                  spec.layer * static_cast<int64_t>(tokens.values.size()));
  }
}

}  // namespace

std::map<std::string, HostField> GatherInputGradients(
    const InputGradients& gradients, const ModelFamily& family,
    const ClassInputs& inputs, const ProcessGrid& grid, int64_t first_sample,
    Control& control) {
  const int64_t n = inputs.samples;
  const std::string pictures = family.samples().name;
  std::map<std::string, Tokens> whole;
  for (const std::string& packed : control.Gather(
           Packed(gradients, grid, first_sample), "gradients of the inputs")) {
    for (const Json& part : Json::from_cbor(packed)) {
      const std::string field = part[0].get<std::string>();
      Tokens& tokens = whole[field];
      if (tokens.values.empty()) {
        const Shape& shape = inputs.fields.at(field).shape;
        const int64_t all = shape.num_elements();
        tokens.samples = n;
        tokens.tokens = field == pictures   ? family.Shape().tokens
                        : shape.rank() == 3 ? shape.dim(1)
                                            : 1;
        tokens.channels = all / (n * tokens.tokens);
        tokens.values.assign(all, 0.0);
      }
      tokens.Place(part);
    }
  }
  std::map<std::string, HostField> named;
  for (auto& [field, tokens] : whole) {
    const std::string name = ClassNameOf(field, family.Call());
    if (name.empty()) continue;
    HostField& gradient = named[name];
    gradient.shape = inputs.fields.at(field).shape;
    if (field == pictures) {
      CpuDevice host(std::numeric_limits<int64_t>::max());
      gradient.values =
          family
              .ToSamples(Tensor::FromValues<double>(
                  host, {n, tokens.tokens, tokens.channels}, tokens.values))
              .ToVector<double>();
      gradient = AsClassHas(gradient, family.Call());
    } else {
      gradient.values = std::move(tokens.values);
    }
  }
  AddTextLayers(whole, family, named);
  return named;
}

}  // namespace trireme
