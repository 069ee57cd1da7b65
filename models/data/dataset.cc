#include "models/data/dataset.h"

#include "runtime/core/status.h"

namespace trireme {

absl::StatusOr<PictureSize> Dataset::ReadSize(int64_t index) const {
  ASSIGN_OR_RETURN(const Sample sample, ReadParts(index, {.image = true}));
  if (!sample.latents.mean.empty()) return sample.latents.size;
  return PictureSize{sample.image.height, sample.image.width};
}

std::vector<absl::StatusOr<PictureSize>> Dataset::ReadSizes() const {
  std::vector<absl::StatusOr<PictureSize>> sizes(size());
#pragma omp parallel for schedule(dynamic, 64)
  for (size_t i = 0; i < sizes.size(); ++i) {
    sizes[i] = ReadSize(static_cast<int64_t>(i));
  }
  return sizes;
}

}  // namespace trireme
