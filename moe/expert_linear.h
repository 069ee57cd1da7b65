// A product of each expert's rows with its weights, wherever rows and weights
// come together: at the experts' ranks, or at the rows', where the weights are
// gathered for as long as they are used and their gradients go back.

#ifndef TRIREME_MOE_EXPERT_LINEAR_H_
#define TRIREME_MOE_EXPERT_LINEAR_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/autograd/parameter.h"
#include "runtime/autograd/tape.h"
#include "runtime/comm/communicator.h"

namespace trireme {

// Rows on this rank, by expert.
struct ExpertRows {
  std::string name;
  std::vector<int64_t> counts;
  // The ranks whose weights come here, where they do: the rows are those of all
  // of theirs, by rank. Null: of this rank's experts.
  Communicator* weights = nullptr;
  // Of the ranks that rows come from as many as are summed in order, before
  // their sums are by a tree (SumByTree); 0: all.
  int64_t ranks_in_order = 0;
  // Rows of each expert from each rank whose rows come here, where gradients of
  // weights are summed rank by rank, as they are where weights move. Empty:
  // they are summed over all rows at once.
  std::vector<std::vector<int64_t>> from_ranks;
  // Weights may move at another load: a dry device takes memory for those of
  // so many ranks.
  int64_t may_gather = 1;
};

// [experts, out, in], whatever parts `out` has.
Tensor ExpertMatrices(const Tensor& weight);

// Of a parameter, this rank's: where it is kept in fewer bits, in its dtype,
// for as long as the result is used.
Tensor OwnExperts(const Parameter& weight);

// Those of the experts whose rows are here: a collective where weights move.
Tensor ExpertWeights(const Parameter& weight, const ExpertRows& rows);

// Adds the sums of dyᵀ·x over each expert's rows to the weight's gradient.
void AddExpertGradient(const Tensor& x, const Tensor& dy,
                       const ExpertRows& rows, Parameter& weight);

// Of rows with these slopes, the input of a bias: it is a weight of one.
Tensor BiasInput(const Tensor& dy);

// y[r, out] = x[r, in]·weight[e]ᵀ + bias[e] for the rows of each expert. The
// weight's local shape is [experts, out, in] or [experts, parts, out/parts,
// in]; the bias's has in = 1, or it is null. Keeps x, or its recipe, where the
// weight trains. Where weights move, a collective over the expert group,
// forward and backward.
Variable ExpertLinear(Tape& tape, const Variable& x, Parameter& weight,
                      Parameter* bias, std::shared_ptr<const ExpertRows> rows);

}  // namespace trireme

#endif  // TRIREME_MOE_EXPERT_LINEAR_H_
