// How tokens' rows and the experts that ep divides come together
// (Plan.Experts).

#ifndef TRIREME_PARALLEL_GRID_EXPERT_EXCHANGE_H_
#define TRIREME_PARALLEL_GRID_EXPERT_EXCHANGE_H_

#include <algorithm>
#include <vector>

namespace trireme {

struct ExpertExchange {
  enum class Moves {
    kRows,     // to the ranks of their experts and back
    kWeights,  // of the experts to the rows' ranks, and their gradients back
    // By a call's load: what is known to be fastest, or whichever is fewer
    // bytes.
    kAdaptive,
  };
  // kRows or kWeights, up to a load: rows of the rank that receives most, over
  // those of even routing.
  struct Choice {
    double max_load = 0;
    Moves moves = Moves::kRows;
    bool by_nodes = false;
    int chunks = 1;
    int row_copies = 0;
  };
  Moves moves = Moves::kRows;
  // Of kAdaptive; ascending, the last one for all above.
  std::vector<Choice> choices;
  // Ranks of the expert group that share a node; 1: rows go in one step.
  int node_ranks = 1;
  // Of rows that go by nodes in one chunk, that a token's goes to a node once.
  bool deduplicates = false;
  // In which rows go, so that one travels while another is computed.
  int chunks = 1;
  // Where several ranks share an expert, how many do, and to how many of them a
  // row goes, 0 for all: each of these gathers the slices of slices/row_copies
  // neighbours while it uses them.
  int slices = 1;
  int row_copies = 0;
  // Experts of a layer whose weights may go to all ranks in a call, where their
  // rows stay.
  int shadowed = 0;
  // Gradients of experts' weights are summed rank by rank, so that they have
  // the same bits whatever moves.
  bool sums_by_rank = false;
  // Rows that a rank receives at most, over those of even routing; 0: as many
  // as there may be.
  double max_load = 0;
  // For what a dry device counts: rows of this rank's experts, over those of
  // even routing.
  double expected_load = 1;

  // How many neighbours' slices may come together in a call, ascending; those
  // of one rank need no group.
  std::vector<int> gathered_slices() const {
    std::vector<int> sizes;
    for (int size = 2; size <= slices; ++size) {
      if (slices % size != 0) continue;
      const auto gathers = [&](Moves moving, int copies) {
        return moving == Moves::kRows && copies * size == slices;
      };
      const bool any =
          moves == Moves::kAdaptive
              ? choices.empty() ||
                    std::any_of(choices.begin(), choices.end(),
                                [&](const Choice& choice) {
                                  return gathers(choice.moves,
                                                 choice.row_copies);
                                })
              : gathers(moves, row_copies);
      if (any) sizes.push_back(size);
    }
    return sizes;
  }

  // Whether rows may travel behind computation.
  bool overlaps() const {
    return chunks > 1 || shadowed > 0 ||
           std::any_of(choices.begin(), choices.end(),
                       [](const Choice& choice) { return choice.chunks > 1; });
  }
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_GRID_EXPERT_EXCHANGE_H_
