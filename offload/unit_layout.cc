#include "offload/unit_layout.h"

#include <algorithm>
#include <utility>

#include "parallel/parameters/frozen_parameters.h"

namespace trireme {
namespace {

// Where `elements` more begin: aligned, as in a bucket.
int64_t Append(int64_t elements, int64_t& count) {
  const int64_t aligned =
      (elements + kShardGranule - 1) / kShardGranule * kShardGranule;
  return std::exchange(count, count + aligned);
}

}  // namespace

std::vector<DeviceBuffers::Buffer> UnitLayout::Buffers(DType dtype) const {
  return {{values, dtype}, {codes, DType::kUint8}, {scales, DType::kFloat32}};
}

void UnitLayout::GrowTo(const UnitLayout& other) {
  trained = std::max(trained, other.trained);
  values = std::max(values, other.values);
  codes = std::max(codes, other.codes);
  scales = std::max(scales, other.scales);
}

bool LiesAtHome(const Parameter& frozen, const UnitHome& home) {
  return home.Has(frozen.unit) && !frozen.replaced_by_gradient;
}

std::map<int, UnitLayout> LayOutUnits(
    const std::vector<std::unique_ptr<Parameter>>& parameters,
    const ParameterBuckets& buckets, const UnitHome& home,
    UnitLayout::Where where) {
  std::map<int, UnitLayout> units;
  for (int b = 0; b < buckets.size(); ++b) {
    const int number = buckets[b].parameters[0]->unit;
    if (!home.Has(number) || buckets[b].device != home.device) continue;
    UnitLayout& unit = units[number];
    const int64_t elements = where == UnitLayout::Where::kHome
                                 ? buckets[b].shard_elements()
                                 : buckets[b].elements;
    unit.parts.push_back({b, Append(elements, unit.values), elements});
    unit.trained = unit.values;
  }
  for (const auto& parameter : parameters) {
    if (parameter->trainable || !LiesAtHome(*parameter, home)) continue;
    UnitLayout& unit = units[parameter->unit];
    UnitLayout::Frozen& frozen = unit.frozen.emplace_back();
    frozen.parameter = parameter.get();
    if (parameter->format == WeightFormat::kFull) {
      frozen.begin = Append(parameter->local_elements(), unit.values);
    } else {
      const QuantizedMatrix layout = QuantizedLayout(*parameter);
      frozen.begin = Append(layout.rows * layout.code_bytes(), unit.codes);
      frozen.scales_begin = Append(layout.rows * layout.blocks(), unit.scales);
    }
  }
  return units;
}

}  // namespace trireme
