// The grids on which parallel training is compared with training on one rank.

#ifndef TRIREME_TESTS_PARITY_GRIDS_H_
#define TRIREME_TESTS_PARITY_GRIDS_H_

#include <vector>

#include "tests/parity/tiny_job.h"

namespace trireme {

// Every tp × pp × dp grid on up to 8 ranks, on heads and a batch that its tp
// and dp divide, and every other mode on some.
std::vector<GridCase> AllGrids();

// Some of each mode in fp32, where a sum in too low a precision would show.
std::vector<GridCase> Fp32Grids();

// Those of `cases` that this run tests.
std::vector<GridCase> Selected(const std::vector<GridCase>& cases);

}  // namespace trireme

#endif  // TRIREME_TESTS_PARITY_GRIDS_H_
