#include "models/family.h"

namespace trireme {

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
