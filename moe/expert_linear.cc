#include "moe/expert_linear.h"

#include <utility>

#include "runtime/ops/grouped_matmul.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

Tensor OfAllExperts(const Tensor& own, int64_t ranks, const ExpertRows& rows) {
  return Tensor::Empty(own.device(),
                       {ranks * own.dim(0), own.dim(1), own.dim(2)},
                       own.dtype(), MemoryCategory::kCommunication, rows.name);
}

// Each rank's part first, then their sum in the order of ranks: what a
// reduce-scatter of parts makes.
Tensor SumByRank(const Tensor& x, const Tensor& dy, const ExpertRows& rows,
                 const Tensor& like) {
  const auto experts = static_cast<int64_t>(rows.from_ranks.size());
  Tensor sum;
  std::vector<int64_t> begins(experts, 0);
  for (int64_t e = 1; e < experts; ++e) {
    begins[e] = begins[e - 1] + rows.counts[e - 1];
  }
  for (int64_t rank = 0; rank < rows.ranks; ++rank) {
    const Tensor part = Tensor::Zeros(like.device(), like.shape(), like.dtype(),
                                      MemoryCategory::kWorkspace, rows.name);
    for (int64_t e = 0; e < experts; ++e) {
      const int64_t count[] = {rows.from_ranks[e][rank]};
      const int64_t end = begins[e] + count[0];
      if (count[0] > 0) {
        GroupedMatMulAccumulate(dy.Slice(begins[e], end),
                                x.Slice(begins[e], end), count,
                                part.Slice(e, e + 1));
      }
      begins[e] = end;
    }
    if (rank == 0) {
      sum = part;
    } else {
      AddInPlace(part, sum);
    }
  }
  return sum;
}

}  // namespace

Tensor ExpertMatrices(const Tensor& weight) {
  return weight.Reshape({weight.dim(0), -1, weight.dim(-1)});
}

Tensor ExpertWeights(const Parameter& weight, const ExpertRows& rows) {
  const Tensor own = ExpertMatrices(weight.value);
  if (rows.weights == nullptr) {
    if (rows.may_move_weights && own.device().dry()) {
      OfAllExperts(own, rows.ranks, rows);
    }
    return own;
  }
  const Tensor all = OfAllExperts(own, rows.ranks, rows);
  rows.weights->AllGather(own, all, rows.name + " weights").Wait();
  return all;
}

void AddExpertGradient(const Tensor& x, const Tensor& dy,
                       const ExpertRows& rows, Parameter& weight) {
  const Tensor own = ExpertMatrices(weight.grad);
  if (rows.weights == nullptr) {
    if (rows.may_move_weights && own.device().dry()) {
      OfAllExperts(own, rows.ranks, rows);
    }
    if (rows.from_ranks.empty()) {
      GroupedMatMulAccumulate(dy, x, rows.counts, own);
    } else {
      AddInPlace(SumByRank(x, dy, rows, own), own);
    }
    return;
  }
  const Tensor all = OfAllExperts(own, rows.ranks, rows);
  all.FillZero();
  GroupedMatMulAccumulate(dy, x, rows.counts, all);
  const Tensor sum = Tensor::Empty(own.device(), own.shape(), own.dtype(),
                                   MemoryCategory::kCommunication, rows.name);
  rows.weights->ReduceScatter(all, sum, rows.name + " gradients").Wait();
  AddInPlace(sum, own);
}

Variable ExpertLinear(Tape& tape, const Variable& x, Parameter& weight,
                      std::shared_ptr<const ExpertRows> rows) {
  Tensor y =
      GroupedMatMul(x.value(), ExpertWeights(weight, *rows), rows->counts,
                    /*transpose=*/true);
  return tape.Record(
      "expert linear", {x}, {&weight}, std::move(y),
      {x.recipe() ? Tensor() : x.value()},
      [&weight, rows, recipe = x.recipe()](Tape::Gradients& gradients) {
        const Tensor dy = gradients.TakeOutput();
        gradients.AddWeightGradient(
            weight, [&weight, rows, recipe, x = gradients.Saved(0), dy] {
              AddExpertGradient(recipe ? recipe() : x, dy, *rows, weight);
            });
        if (gradients.Needs(0)) {
          gradients.Accumulate(
              0, GroupedMatMul(dy, ExpertWeights(weight, *rows), rows->counts,
                               /*transpose=*/false));
        }
      });
}

}  // namespace trireme
