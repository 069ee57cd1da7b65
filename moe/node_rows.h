// Tokens' rows on their way to experts by nodes, each once to a node whatever
// experts of it the token goes to (DeepSeek-AI, "DeepEP"; Rajbhandari et al.,
// "DeepSpeed-MoE" for tp). Of n nodes with m ranks each, a rank sends a node
// the rows of the tokens that go there, to the rank of its own place, which
// passes each on to the ranks of its node that have a route of it.
//
// What arrives has the bits and the order of ExchangeRows. What experts return
// goes by ExchangeRows: a row for each route, since sums over a token's routes
// would have another order if a node formed its part of them.

#ifndef TRIREME_MOE_NODE_ROWS_H_
#define TRIREME_MOE_NODE_ROWS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "moe/row_exchange.h"
#include "parallel/grid/communicators.h"
#include "runtime/device/tensor.h"

namespace trireme {

class NodeRows {
 public:
  // `tokens`: int32 [rows], in the order of receivers, whose rows of
  // `num_tokens` this rank sends. `capacity`: rows that it receives at most. A
  // dry device, which knows no tokens, is told how many of them go to a node. A
  // collective over the ranks of this one's place.
  NodeRows(const Communicators& communicators, RowCounts counts,
           const Tensor& tokens, int64_t num_tokens, int64_t dry_tokens,
           int64_t capacity, const std::string& name);

  // x[num_tokens, h] → [capacity, h] by sender. A collective over the expert
  // group.
  Tensor Spread(const Tensor& x) const;

 private:
  const Communicators& communicators_;
  const RowCounts counts_;
  const int64_t capacity_;
  const std::string name_;
  // By node, rows between the ranks of this place.
  std::vector<int64_t> sent_, received_;
  // Rows fewer than routes, to other nodes.
  int64_t saved_ = 0;
  // int32: of x the rows that go, by node; and of those that arrive from all
  // nodes the ones that are passed on, by rank of the node.
  Tensor tokens_, passed_on_;
};

}  // namespace trireme

#endif  // TRIREME_MOE_NODE_ROWS_H_
