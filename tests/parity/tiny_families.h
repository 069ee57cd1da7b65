// The models of tiny jobs, and sizes that whoever makes samples of them needs.

#ifndef TRIREME_TESTS_PARITY_TINY_FAMILIES_H_
#define TRIREME_TESTS_PARITY_TINY_FAMILIES_H_

#include <cstdint>
#include <memory>

#include "models/family.h"
#include "tests/parity/tiny_job.h"

namespace trireme {

// Of the states of captions' encoders, of a picture, and classes of pictures.
inline constexpr int64_t kPooledWidth = 3;
inline constexpr int64_t kWidth = 8;
inline constexpr int64_t kSwinClasses = 10;
// Sides of grids of cells.
inline constexpr int64_t kGridSide = 16;
// More than a block of cells, and no even number of them. Cells of twice the
// side lie in several windows, as do those of four times it where windows are
// shifted.
inline constexpr int32_t kVoxelSide = 17;
inline constexpr int64_t kMostVoxels = 198;

// What `grid` trains.
std::shared_ptr<const ModelFamily> FamilyOf(const GridCase& grid);

}  // namespace trireme

#endif  // TRIREME_TESTS_PARITY_TINY_FAMILIES_H_
