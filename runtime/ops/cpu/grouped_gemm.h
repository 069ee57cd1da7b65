// The grouped products of runtime/ops/kernels/grouped_gemm.h on the host.
//
// By a matrix unit, groups are multiplied one after the other, each by all
// threads. Elsewhere they are cut into blocks of a fixed number of rows, the
// last of each group padded with zeros, so that one prepared product does
// however groups change; threads share the blocks, or, of sums over rows, the
// result's rows.

#ifndef TRIREME_RUNTIME_OPS_CPU_GROUPED_GEMM_H_
#define TRIREME_RUNTIME_OPS_CPU_GROUPED_GEMM_H_

#include <cstdint>
#include <span>

#include "runtime/ops/kernels/grouped_gemm.h"

namespace trireme {

int64_t GroupedGemmWorkspace(const GroupedGemmSpec& spec);
void RunGroupedGemm(std::span<const int64_t> counts,
                    const GroupedGemmSpec& spec,
                    const GroupedGemmOperands& operands);
bool MultipliesGroupsOfCodes(const GroupedGemmSpec& spec);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_GROUPED_GEMM_H_
