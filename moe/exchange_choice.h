// What moves in a call of a layer, by what was routed. Every rank knows all
// ranks' counts, and so all choose alike; whatever they choose, results and
// gradients have the same bits.

#ifndef TRIREME_MOE_EXCHANGE_CHOICE_H_
#define TRIREME_MOE_EXCHANGE_CHOICE_H_

#include <cstdint>
#include <vector>

#include "moe/expert_slices.h"
#include "moe/row_exchange.h"
#include "parallel/grid/expert_exchange.h"

namespace trireme {

struct DispatchSizes {
  int64_t experts = 0;
  // Ranks that share an expert.
  int64_t slices = 1;
  // Routes of a rank's tokens that any one expert has at most.
  int64_t most_of_expert = 0;
  // Bytes on their way, forward and backward, of a row; of an expert, or a
  // slice, that comes to other rows; and of one that is shadowed.
  int64_t row_bytes = 0;
  int64_t expert_bytes = 0;
  int64_t shadowed_bytes = 0;
};

// What moves by `table`, [ranks, experts], of each rank's routes those to each
// expert; with row_copies of rows that move. A dry device takes memory for the
// most that may come.
ExpertExchange::Choice ChooseExchange(const ExpertExchange& exchange,
                                      const std::vector<int64_t>& table,
                                      int64_t ranks, const DispatchSizes& sizes,
                                      bool dry);

// The experts whose weights go to all ranks, where their rows stay: those that
// have most rows from others, as many of them, up to `most`, as leave the rank
// that has most to send or receive the fewest bytes (He et al., "FasterMoE:
// modeling and optimizing training of large-scale dynamic pre-trained models",
// section 4.2). Ascending. `table`: [ranks, experts], of
// each rank's routes those to each expert.
std::vector<int64_t> ChooseShadowed(const std::vector<int64_t>& table,
                                    int64_t ranks, int64_t most,
                                    const DispatchSizes& sizes);

// The table without the routes to some experts.
std::vector<int64_t> Without(const std::vector<int64_t>& experts,
                             std::vector<int64_t> table, int64_t ranks);

}  // namespace trireme

#endif  // TRIREME_MOE_EXCHANGE_CHOICE_H_
