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
#include "moe/row_exchange.h"
#include "moe/shadowed_experts.h"
#include "parallel/communicators.h"
#include "runtime/device/tensor.h"

namespace trireme {

struct RowChunks {
  struct Chunk {
    RowCounts counts;
    // Of each of this rank's experts.
    std::vector<int64_t> of_experts;
    int64_t sent = 0;
    int64_t capacity = 0;  // received rows that memory is taken for
    Tensor by_expert;  // int32 [capacity]: the received row of each expert's
    Tensor by_rank;    // and the other way round
  };

  std::string name;
  const Communicators* communicators = nullptr;
  bool by_nodes = false;
  // This rank's experts' rows of all chunks together.
  std::shared_ptr<const ExpertRows> rows;
  std::vector<Chunk> chunks;
  // The sender's rows, chunk by chunk (SortedRoutes).
  Tensor routes;
  Tensor tokens;
  Tensor places;
  // int32 [rows of all experts]: of the chunks' experts' rows, one chunk after
  // the other, that which each of all rows is, expert by expert.
  Tensor together;

  // Whose rows stay: behind all chunks', expert by expert.
  ShadowedExperts shadowed;

  // The sender's rows that go, and all.
  int64_t going() const;
  int64_t all() const { return going() + shadowed.capacity; }
};

// `experts`: int32 [t, k], −1 goes nowhere. `table`: [ranks, experts], of each
// rank's routes that go to each expert. `capacity`: rows that this rank
// receives at most. Without what the caller knows: name, communicators,
// by_nodes, rows.
RowChunks MakeRowChunks(const Tensor& experts,
                        const std::vector<int64_t>& table, int64_t ranks,
                        int64_t rank, int64_t chunks, int64_t capacity,
                        ShadowedExperts shadowed);

}  // namespace trireme

#endif  // TRIREME_MOE_ROW_CHUNKS_H_
