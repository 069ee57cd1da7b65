#include "trainer/sampling/sample_medium.h"

#include "fmt/format.h"
#include "models/data/sample_order.h"
#include "runtime/core/status.h"
#include "trainer/sampling/picture_medium.h"
#include "trainer/sampling/shape_medium.h"

namespace trireme {

std::unique_ptr<SampleMedium> MediumOf(const ModelFamily& family,
                                       const Data& data) {
  if (data.has_shapes()) {
    return std::make_unique<ShapeMedium>(
        family.samples(), static_cast<int>(data.shapes().resolution()));
  }
  return std::make_unique<PictureMedium>(family.samples(),
                                         family.num_classes() > 0);
}

absl::Status TakeReal(const Dataset& dataset, const SampleParts& parts,
                      int64_t skip, int64_t least, int64_t most,
                      const std::string& things,
                      const std::function<absl::Status(const Sample&)>& take) {
  const SampleOrder order(/*seed=*/0, dataset.size());
  int64_t taken = 0;
  for (int64_t i = skip; i < dataset.size() && taken < most; ++i) {
    const absl::StatusOr<Sample> sample =
        dataset.ReadParts(order.Index(i), parts);
    if (!sample.ok()) continue;
    RETURN_IF_ERROR(take(*sample));
    ++taken;
  }
  if (taken >= least) return absl::OkStatus();
  return FailedPrecondition(
      "found {} readable {} to compare with{}, expected {}", taken, things,
      skip > 0 ? fmt::format(" beside {} others", skip) : "", least);
}

}  // namespace trireme
