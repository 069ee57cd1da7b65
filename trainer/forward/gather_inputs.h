// The gradients of a model's inputs, from the ranks that each have a part.

#ifndef TRIREME_TRAINER_FORWARD_GATHER_INPUTS_H_
#define TRIREME_TRAINER_FORWARD_GATHER_INPUTS_H_

#include <cstdint>
#include <map>
#include <string>

#include "models/family.h"
#include "models/input_gradients.h"
#include "parallel/grid/process_grid.h"
#include "runtime/comm/control.h"
#include "trainer/forward/class_inputs.h"

namespace trireme {

// By the names and in the layout of the class, on rank 0. `first_sample`: of
// this rank's local batch among all. Collective over the world.
std::map<std::string, HostField> GatherInputGradients(
    const InputGradients& gradients, const ModelFamily& family,
    const ClassInputs& inputs, const ProcessGrid& grid, int64_t first_sample,
    Control& control);

}  // namespace trireme

#endif  // TRIREME_TRAINER_FORWARD_GATHER_INPUTS_H_
