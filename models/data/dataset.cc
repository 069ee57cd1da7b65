#include "models/data/dataset.h"

#include "runtime/core/status.h"

namespace trireme {

absl::StatusOr<PictureSize> Dataset::ReadSize(int64_t index) const {
  ASSIGN_OR_RETURN(const Sample sample, ReadParts(index, {.image = true}));
  if (!sample.latents.mean.empty()) return sample.latents.size;
  return PictureSize{sample.image.height, sample.image.width};
}

}  // namespace trireme
