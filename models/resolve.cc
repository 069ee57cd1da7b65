#include "models/resolve.h"

#include "models/dit/dit_family.h"
#include "models/mmdit/mmdit_family.h"
#include "models/objective/rectified_flow.h"
#include "runtime/core/status.h"

namespace trireme {

absl::StatusOr<std::shared_ptr<const ModelFamily>> ResolveModel(
    Model& model, const DataFormat& data) {
  switch (model.family_case()) {
    case Model::kDit: {
      ASSIGN_OR_RETURN(const DitConfig config,
                       ResolveDit(model.dit(),
                                  {.channels = data.channels,
                                   .height = data.resolution,
                                   .width = data.resolution},
                                  data.classes));
      FillDit(config, *model.mutable_dit());
      return MakeDitFamily(config);
    }
    case Model::kMmdit: {
      ASSIGN_OR_RETURN(
          const MmditConfig config,
          ResolveMmdit(model.mmdit(), data.channels, data.resolution));
      FillMmdit(config, *model.mutable_mmdit());
      return MakeMmditFamily(config);
    }
    case Model::FAMILY_NOT_SET:
      break;
  }
  return InvalidArgument("model: found no family, expected dit or mmdit");
}

absl::StatusOr<ResolvedObjective> ResolveObjective(ObjectiveConfig& objective,
                                                   uint64_t seed,
                                                   int64_t global_batch) {
  // The only kind, and the default.
  RectifiedFlow& flow = *objective.mutable_rectified_flow();
  ASSIGN_OR_RETURN(const RectifiedFlowConfig config,
                   ResolveRectifiedFlow(flow));
  FillRectifiedFlow(config, flow);
  return ResolvedObjective{.training = std::make_shared<RectifiedFlowObjective>(
                               config, seed, global_batch),
                           .sampling_shift = config.shift};
}

}  // namespace trireme
