#include "trainer/sampling/reconstructions.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "models/autoencoder/field_autoencoder.h"
#include "models/data/dataset.h"
#include "runtime/core/status.h"
#include "trainer/batches.h"
#include "trainer/run/shape_latents.h"
#include "trainer/sampling/sample_medium.h"
#include "trainer/sampling/shape_medium.h"

namespace trireme {
namespace {

// What is compared over all shapes.
struct Figures {
  int64_t inside_both = 0;
  int64_t inside_either = 0;
  double error = 0;
  int64_t near = 0;
};

struct Measured {
  std::vector<float> given;
  std::vector<float> got;
};

// The field at points with distances [.., 4].
absl::StatusOr<Measured> Measure(const PointFunction& field, double thickened,
                                 std::span<const float> rows) {
  std::vector<Vector3f> points;
  Measured measured;
  for (size_t i = 0; i + 4 <= rows.size(); i += 4) {
    points.push_back({rows[i], rows[i + 1], rows[i + 2]});
    measured.given.push_back(static_cast<float>(rows[i + 3] - thickened));
  }
  measured.got.resize(points.size());
  RETURN_IF_ERROR(field(points, measured.got));
  return measured;
}

absl::Status Compare(const FieldAutoencoder& autoencoder,
                     std::span<const float> given_back, const Sample& sample,
                     Figures& figures) {
  const FieldAutoencoder::GivenBack format = autoencoder.given_back();
  ASSIGN_OR_RETURN(const PointFunction field,
                   autoencoder.FieldOf(given_back, sample));
  ASSIGN_OR_RETURN(const Measured anywhere,
                   Measure(field, format.thickened, sample.uniform_distances));
  for (size_t i = 0; i < anywhere.given.size(); ++i) {
    const bool given = anywhere.given[i] < 0, got = anywhere.got[i] < 0;
    figures.inside_both += given && got;
    figures.inside_either += given || got;
  }
  ASSIGN_OR_RETURN(const Measured near,
                   Measure(field, format.thickened, sample.near_distances));
  const auto most = static_cast<float>(format.cut_off);
  for (size_t i = 0; i < near.given.size(); ++i) {
    figures.error +=
        format.occupancy
            ? static_cast<double>((near.got[i] < 0) != (near.given[i] < 0))
            : std::abs(near.got[i] - std::clamp(near.given[i], -most, most));
  }
  figures.near += static_cast<int64_t>(near.given.size());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ReconstructionReport> DrawReconstructions(
    const ReconstructionOptions& options, const Data& data, Device& device) {
  ASSIGN_OR_RETURN(const std::unique_ptr<FieldAutoencoder> autoencoder,
                   OpenToGiveBack(options.model, data, device));
  const ShapeMedium medium(
      {.name = kTokenSetField, .shape = autoencoder->given_back().shape},
      [&](std::span<const float> sample, const Sample& prompt) {
        return autoencoder->FieldOf(sample, prompt);
      },
      KeptParts::kAll, options.shape_files);
  RETURN_IF_ERROR(medium.CheckFiles(options.out, options.overwrite));
  ASSIGN_OR_RETURN(const std::unique_ptr<Dataset> dataset,
                   data.held_out() > 0 ? OpenHeldOut(data) : OpenDataset(data));
  std::vector<std::string> names;
  std::vector<float> given_back;
  std::vector<Sample> prompts;
  Figures figures;
  for (int64_t i = 0;
       i < dataset->size() && static_cast<int64_t>(names.size()) < options.most;
       ++i) {
    const absl::StatusOr<Sample> sample = dataset->Read(i);
    if (!sample.ok()) continue;
    ASSIGN_OR_RETURN(const std::vector<float> made,
                     autoencoder->GiveBack(*sample));
    RETURN_IF_ERROR(Compare(*autoencoder, made, *sample, figures));
    given_back.insert(given_back.end(), made.begin(), made.end());
    prompts.emplace_back().voxels = sample->voxels;
    names.push_back(sample->caption.empty() ? sample->key : sample->caption);
  }
  if (names.empty()) {
    return NotFound("found no readable shape among {}", dataset->size());
  }
  const auto shapes = static_cast<int64_t>(names.size());
  RETURN_IF_ERROR(medium.Write(options.out, {.names = std::move(names),
                                             .per_row = 1,
                                             .samples = given_back,
                                             .prompts = prompts}));
  return ReconstructionReport{
      .shapes = shapes,
      .files = medium.FilesOf(options.out),
      .figures = fmt::format(
          "given back of {} {} shapes: volume IoU {:.3f}, {} near the surface "
          "{:.4f}\n",
          shapes, data.held_out() > 0 ? "held-out" : "training",
          static_cast<double>(figures.inside_both) /
              std::max<int64_t>(figures.inside_either, 1),
          autoencoder->given_back().occupancy ? "share on the wrong side"
                                              : "mean error",
          figures.error / std::max<int64_t>(figures.near, 1))};
}

}  // namespace trireme
