// Rows of tokens in several chunks, so that one travels to the experts' ranks,
// or back, while the experts compute another (Hwang et al., "Tutel: adaptive
// mixture-of-experts at scale", section 3.4). Each chunk has its share of the
// rows from each rank to each expert, in their order: chunks are alike however
// tokens are routed, and no row's bits depend on how many there are.

#ifndef TRIREME_MOE_ROW_CHUNKS_H_
#define TRIREME_MOE_ROW_CHUNKS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "moe/expert_linear.h"
#include "moe/expert_slices.h"
#include "moe/row_exchange.h"
#include "moe/shadowed_experts.h"
#include "parallel/grid/communicators.h"
#include "runtime/device/tensor.h"

namespace trireme {

struct RowChunks {
  struct Chunk {
    RowCounts counts;
    // Of each of this rank's experts, or of the slices that come to it.
    std::vector<int64_t> of_experts;
    int64_t sent = 0;
    int64_t capacity = 0;  // received rows that memory is taken for
    // int32 [gathered slices·capacity]: the received row of each expert's; and
    // [capacity] the other way round, of the first slice.
    Tensor by_expert;
    Tensor by_rank;
  };

  std::string name;
  const Communicators* communicators = nullptr;
  bool by_nodes = false;
  // This rank's experts' rows of all chunks together.
  std::shared_ptr<const ExpertRows> rows;
  std::vector<Chunk> chunks;
  ExpertSlices slices;
  // The sender's rows, chunk by chunk (SortedRoutes), of which copies go, and
  // how many there are of each chunk's experts.
  std::vector<int64_t> counts;
  Tensor routes;
  Tensor tokens;
  Tensor places;
  // int32 [rows of all experts]: of the chunks' experts' rows, one chunk after
  // the other, that which each of all rows is, expert by expert.
  Tensor together;

  // Whose rows stay: behind all chunks', expert by expert.
  ShadowedExperts shadowed;

  // The sender's copies of rows that go, and with those that stay.
  int64_t going() const;
  int64_t all() const { return going() + shadowed.capacity; }
  // Rows of routes, [.., h], to those that go and stay; and the conjugate.
  Tensor Copies(const Tensor& rows) const {
    return CopyGroups(rows, counts, slices.copies);
  }
  Tensor Sums(const Tensor& copies) const {
    return SumCopies(copies, counts, slices.copies);
  }
};

// `experts`: int32 [t, k], −1 goes nowhere. `table`: [ranks, experts·slices],
// of each rank's routes that go to each slice. `capacity`: rows that this rank
// receives at most. Without what the caller knows: name, communicators,
// by_nodes, rows.
RowChunks MakeRowChunks(const Tensor& experts,
                        const std::vector<int64_t>& table, int64_t ranks,
                        int64_t rank, const ExpertSlices& slices,
                        int64_t chunks, int64_t capacity,
                        ShadowedExperts shadowed);

}  // namespace trireme

#endif  // TRIREME_MOE_ROW_CHUNKS_H_
