// The op cases that have files of their own; EveryOp() has all.

#ifndef TRIREME_RUNTIME_OPS_OP_CASE_FAMILIES_TESTING_H_
#define TRIREME_RUNTIME_OPS_OP_CASE_FAMILIES_TESTING_H_

#include <vector>

#include "runtime/ops/op_cases_testing.h"

namespace trireme {

// Attention: of windows, of any tokens, and of sparse voxels.
std::vector<OpCase> WindowAttentions();
std::vector<OpCase> Attentions();
std::vector<OpCase> SparseAttentions();

// Convolutions and norms over grids: pictures' and sparse voxels'.
std::vector<OpCase> Pictures();
std::vector<OpCase> SparseVoxels();

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_OP_CASE_FAMILIES_TESTING_H_
