// Grids of tests whose blocks stream through the device.

#ifndef TRIREME_TESTS_PARITY_OFFLOAD_GRIDS_H_
#define TRIREME_TESTS_PARITY_OFFLOAD_GRIDS_H_

#include <cstdint>
#include <utility>

#include "parallel/parameters/trained_parameters.h"
#include "tests/parity/tiny_job.h"

namespace trireme {

inline GridCase Offloaded(GridCase grid, uint32_t resident_units) {
  grid.plan.mutable_offload()->set_resident_units(resident_units);
  return grid;
}

// Blocks are frozen in a format, and adapters of theirs train.
inline TrainedParameters Adapters(WeightFormat frozen) {
  return {.kind = TrainedParameters::Kind::kAdapters,
          .layers = {"blocks.*"},
          .rank = 2,
          .alpha = 3,
          .frozen = frozen};
}

}  // namespace trireme

#endif  // TRIREME_TESTS_PARITY_OFFLOAD_GRIDS_H_
