// The local part of a reduction on a GPU: what Reduce of collective.h is on the
// host, with the same bits.

#ifndef TRIREME_RUNTIME_COMM_NCCL_RANK_ORDER_SUM_H_
#define TRIREME_RUNTIME_COMM_NCCL_RANK_ORDER_SUM_H_

#include <cstdint>

#include "runtime/comm/operation.h"
#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"

namespace trireme {

// The parts of `size` ranks: rank `rank`'s own, and the others' one after the
// other, `stride` elements apart.
struct RankParts {
  int size = 1;
  int rank = 0;
  const void* own = nullptr;
  const void* others = nullptr;
  int64_t stride = 0;
};

// out[i] = the reduction of the parts' elements i, in rank order; 16-bit types
// in fp32, rounded once. `out` may be the own part. bool has none (CHECKed).
void ReduceRankParts(Stream& stream, DType dtype, ReduceOp op,
                     const RankParts& parts, int64_t count, void* out);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_NCCL_RANK_ORDER_SUM_H_
