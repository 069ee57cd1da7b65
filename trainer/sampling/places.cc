#include "trainer/sampling/places.h"

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "models/shape/occupancy.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "trainer/job/data_config.h"
#include "trainer/sampling/sampler.h"

namespace trireme {
namespace {

// Whether what one run draws are places of the other's tokens.
absl::Status CheckFit(const std::string& run, const LoadedRun& places,
                      const LoadedRun& drawn) {
  const VolumeShape shape = VolumeShapeOf(places.job.data().shapes());
  if (shape.occupied_of == 0) {
    return InvalidArgument(
        "places: found {}, whose data are other than which cells are occupied, "
        "expected a run of those (data.shapes.volume.occupied_of)",
        run);
  }
  const int64_t grid =
      DataFormatOf(drawn.job.data(), /*classes=*/0).voxel_resolution;
  if (shape.cells == grid) return absl::OkStatus();
  return InvalidArgument(
      "places: found {} with {} cells a side, expected {}, as the model draws "
      "at",
      run, shape.cells, grid);
}

// What the run of places draws for, of what the other one does.
absl::StatusOr<std::vector<Sample>> PromptsOf(
    const std::string& run, const LoadedRun& places, const LoadedRun& drawn,
    const std::vector<Sample>& prompts) {
  std::vector<Sample> asked = prompts;
  for (Sample& prompt : asked) {
    prompt.voxels.clear();
    if (places.setup.family->num_classes() == 0) {
      prompt.class_id = -1;
      continue;
    }
    if (prompt.class_id < 0) {
      return InvalidArgument(
          "places: found {}, which draws for classes, expected a run without "
          "them: the model draws for none",
          run);
    }
    const std::string& name = drawn.class_names.at(prompt.class_id);
    const auto found =
        std::find(places.class_names.begin(), places.class_names.end(), name);
    if (found == places.class_names.end()) {
      return InvalidArgument(
          "places: found {} without the class {}, expected one that has it",
          run, name);
    }
    prompt.class_id = static_cast<int>(found - places.class_names.begin());
  }
  return asked;
}

// Gives each prompt the cells of its sample of `tokens`.
absl::Status SetVoxels(std::span<const float> tokens, const VolumeShape& shape,
                       int64_t most, std::vector<Sample>& prompts) {
  int64_t left_out = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    ASSIGN_OR_RETURN(OccupiedCells cells,
                     OccupiedCellsOf(tokens.subspan(i * shape.token_values(),
                                                    shape.token_values()),
                                     shape, most));
    prompts[i].voxels = std::move(cells.voxels);
    left_out += cells.left_out;
  }
  if (left_out > 0) {
    LOG(WARNING) << left_out << " cells of " << prompts.size()
                 << " samples are left out: a sample has at most " << most;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<Sample>> DrawPlaces(
    const DrawOptions& options, const LoadedRun& loaded,
    const std::vector<Sample>& prompts, Device& device,
    CommunicatorFactory& factory, Communicator& everyone, Control& control) {
  if (prompts.empty()) return prompts;
  const DrawOptions of_places = {
      .run = *options.places, .seed = options.seed, .ema = options.ema};
  const auto places = LoadRun(of_places);
  RETURN_IF_ERROR(control.Agree(places.status(), "opening the run of places"));
  RETURN_IF_ERROR(CheckFit(of_places.run, *places, loaded));
  ASSIGN_OR_RETURN(const std::vector<Sample> asked,
                   PromptsOf(of_places.run, *places, loaded, prompts));
  ASSIGN_OR_RETURN(const std::string checkpoint,
                   ChooseCheckpoint(everyone, control, of_places));
  ASSIGN_OR_RETURN(const SamplerOptions sampling,
                   SamplingFor(of_places, *places));
  std::vector<float> drawn;
  {
    ASSIGN_OR_RETURN(
        const std::unique_ptr<Sampler> sampler,
        OpenSampler(of_places, *places, checkpoint, device, factory, control));
    ASSIGN_OR_RETURN(drawn, sampler->Draw(sampling, options.seed, asked));
  }
  absl::StatusOr<std::vector<Sample>> placed = prompts;
  if (control.rank() == 0) {
    const absl::Status status =
        SetVoxels(drawn, VolumeShapeOf(places->job.data().shapes()),
                  loaded.setup.family->samples().shape.dim(0), *placed);
    if (!status.ok()) placed = status;
  }
  return SharePrompts(everyone, control, placed);
}

}  // namespace trireme
