// What the implementations of Communicator share: the segments that reductions
// are cut into with their staging memory, and the local reduction.
//
// Reductions everywhere run as "exchange slices, reduce in rank order, gather":
// each element is reduced by one rank only, in the compute type and in rank
// order, so that it is rounded once and comes out the same on all ranks. The
// staging memory depends on sizes only and is the same on dry devices.

#ifndef TRIREME_RUNTIME_COMM_COLLECTIVE_H_
#define TRIREME_RUNTIME_COMM_COLLECTIVE_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "runtime/comm/communicator.h"
#include "runtime/device/tensor.h"

namespace trireme {

// "0-3", "0, 2, 4".
std::string RanksText(std::span<const int> ranks);

// The place of a world rank among `ranks`, the world ranks of the group `name`;
// CHECKs that it has one.
int RankInGroup(int world_rank, std::span<const int> ranks,
                std::string_view name);

// How a reduction is cut. Rank j owns elements [j·owned, (j+1)·owned) of the
// tensor (clipped to its end); segment k covers elements [k·length,
// (k+1)·length) of every rank's own part. At most kSlots segments are under
// way at once, each with staging for what size−1 peers send.
struct ReductionSegments {
  static constexpr int kSlots = 2;

  int64_t elements = 0;
  int64_t owned = 0;
  int64_t length = 0;
  int64_t count = 0;
  int slots = 0;

  // Bytes that the peers' parts of one segment take in staging, unless messages
  // would become tiny. Measured with shared memory: 1 MiB is as fast as
  // anything larger and stays in cache.
  static constexpr int64_t kSegmentBytes = 1 << 20;
  static ReductionSegments Of(int64_t elements, DType dtype, int size,
                              int64_t segment_bytes = kSegmentBytes);

  // Elements [begin, end) of the tensor that segment k has of rank j's part.
  struct Range {
    int64_t begin = 0;
    int64_t end = 0;
    int64_t size() const { return end - begin; }
  };
  Range RangeOf(int64_t segment, int rank) const;

  // The staging tensor [slots, size−1, length] on the device of `data`.
  Tensor MakeStaging(const Tensor& data, int size) const;
};

// out[i] = the reduction over j, in order, of sources[j][i]. `out` may be one
// of the sources.
void Reduce(std::span<const void* const> sources, void* out, int64_t count,
            DType dtype, ReduceOp op);

// What an operation on a dry device is: nothing moves, but the staging memory
// of a reduction counts until Wait, as on a real one.
Event DryEvent(const Operation& operation, int size);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_COLLECTIVE_H_
