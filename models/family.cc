#include "models/family.h"

#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {

absl::StatusOr<std::shared_ptr<const ModelFamily>> ModelFamily::ForInputs(
    const InputSizes& sizes) const {
  return InvalidArgument(
      "hidden_states: found pictures of {} x {}, expected a model of pictures",
      sizes.height, sizes.width);
}

Tensor ModelFamily::ToSamples(const Tensor& /*prediction*/) const {
  CHECK(false) << "a model without a prediction of samples was asked for them";
  return {};
}

absl::StatusOr<std::shared_ptr<const ModelFamily>> FamilyAt(
    const ModelFamily& family, const PictureSize& size) {
  InputSizes sizes = {.height = size.height, .width = size.width};
  for (const FieldSpec& spec : AllFields(family)) {
    if (spec.name == kTextField) sizes.text_tokens = spec.shape.dim(0);
    if (spec.num_layers > 0) sizes.text_layer_tokens = spec.shape.dim(0);
  }
  return family.ForInputs(sizes);
}

}  // namespace trireme
