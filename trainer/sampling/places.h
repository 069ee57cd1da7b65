// The first of the two models that draw a shape (Wu et al., "Direct3D-S2",
// section 3.4): which cells are occupied, at which the second one draws.

#ifndef TRIREME_TRAINER_SAMPLING_PLACES_H_
#define TRIREME_TRAINER_SAMPLING_PLACES_H_

#include <vector>

#include "absl/status/statusor.h"
#include "models/data/dataset.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/control.h"
#include "runtime/device/device.h"
#include "trainer/sampling/draw_samples.h"
#include "trainer/sampling/loaded_run.h"

namespace trireme {

// The prompts of `loaded`, a model that draws at voxels, with those that the
// run options.places draws for each: of the class of the same name, with the
// same seed. Warns of cells that it draws and the model has no room for.
// Collective over the factory's world, with the same arguments; the same error
// on all ranks: a run of no such model, of another grid, without one of the
// classes.
absl::StatusOr<std::vector<Sample>> DrawPlaces(
    const DrawOptions& options, const LoadedRun& loaded,
    const std::vector<Sample>& prompts, Device& device,
    CommunicatorFactory& factory, Communicator& everyone, Control& control);

}  // namespace trireme

#endif  // TRIREME_TRAINER_SAMPLING_PLACES_H_
