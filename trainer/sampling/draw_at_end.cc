#include "trainer/sampling/draw_at_end.h"

#include <utility>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "runtime/device/device.h"
#include "trainer/sampling/sample_medium.h"

namespace trireme {

absl::StatusOr<int64_t> PredictDrawingAtEnd(const Job& job,
                                            const TrainingSetup& setup,
                                            const Plan& plan, int rank,
                                            DeviceKind kind, int64_t limit) {
  if (!job.sample().at_end()) return 0;
  if (rank == 0) {
    const auto decodes = PredictMemoryOfDecoding(*setup.family, job.data());
    RETURN_IF_ERROR(WithContext(
        decodes.status(),
        "sample.at_end: no autoencoder to draw with (set at_end: false, or "
        "data.latents.autoencoder)"));
  }
  if (plan.has_offload()) return 0;
  const absl::StatusOr<MemoryStatistics> predicted =
      PredictMemoryOfDrawing(job, setup, plan, rank, kind);
  // A plan under which nothing can be drawn may train all the same.
  if (!predicted.ok()) return 0;
  if (predicted->peak_bytes <= limit) return predicted->peak_bytes;
  return ResourceExhausted(
      "sample.at_end: to draw when training ends, rank {} would need {} of its "
      "limit of {}, expected less: raise memory_limit_bytes, use a larger tp "
      "or pp, or set at_end: false",
      rank, BytesText(predicted->peak_bytes), BytesText(limit));
}

absl::StatusOr<DrawnAtEnd> DrawAtEnd(const RunFolder& folder, int64_t step,
                                     const ComputeDevice& device,
                                     int local_ranks,
                                     CommunicatorFactory& factory,
                                     std::function<bool()> stop) {
  DrawOptions options;
  options.run = folder.root();
  options.out = fmt::format("{}/step_{:08}.png", folder.samples(), step);
  options.device = device;
  options.local_ranks = local_ranks;
  options.overwrite = true;
  options.stop = std::move(stop);
  DrawnAtEnd drawn{.path = options.out, .report = {}};
  ASSIGN_OR_RETURN(drawn.report, DrawSamples(options, factory));
  return drawn;
}

}  // namespace trireme
