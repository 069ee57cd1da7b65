#include "moe/expert_linear.h"

#include <functional>
#include <utility>

#include "moe/expert_slices.h"
#include "runtime/autograd/functions.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/grouped_matmul.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

Tensor OfRanks(const Tensor& own, int64_t ranks, const std::string& name) {
  return Tensor::Empty(own.device(),
                       {ranks * own.dim(0), own.dim(1), own.dim(2)},
                       own.dtype(), MemoryCategory::kCommunication, name);
}

// What another load would take of such weights and, where they are gradients,
// their parts: held for as long as the result is.
Tensor TakeMemory(const Tensor& own, const ExpertRows& rows, bool gradient) {
  if (rows.may_gather == 1 || !own.device().dry()) return own;
  int64_t ranks = rows.may_gather;
  if (gradient && rows.ranks_in_order > 0) {
    // All that are sent, all that arrive, and those on the way up a tree; or
    // three of one expert's slices.
    ranks += rows.may_gather + rows.may_gather / rows.ranks_in_order + 4;
  }
  return OfRanks(own, ranks, rows.name).Slice(0, own.dim(0));
}

// Each rank's part first, then their sum: what an exchange of parts makes.
Tensor SumOfParts(const Tensor& x, const Tensor& dy, const ExpertRows& rows,
                  const Shape& shape, const Tensor& like) {
  const auto experts = static_cast<int64_t>(rows.from_ranks.size());
  std::vector<int64_t> begins(experts, 0);
  for (int64_t e = 1; e < experts; ++e) {
    begins[e] = begins[e - 1] + rows.counts[e - 1];
  }
  const auto ranks = static_cast<int64_t>(rows.from_ranks.front().size());
  return SumByTree(ranks,
                   rows.ranks_in_order == 0 ? ranks : rows.ranks_in_order,
                   [&](int64_t rank) {
                     const Tensor part =
                         Tensor::Zeros(like.device(), shape, like.dtype(),
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
                     return part;
                   });
}

// This rank's share of the sum of what the ranks of `rows.weights` have for all
// of theirs.
Tensor SumOverRanks(const Tensor& all, const Tensor& own,
                    const ExpertRows& rows) {
  Communicator& group = *rows.weights;
  const std::string name = rows.name + " gradients";
  if (rows.ranks_in_order == 0) {
    const Tensor sum = Tensor::Empty(own.device(), own.shape(), own.dtype(),
                                     MemoryCategory::kCommunication, rows.name);
    group.ReduceScatter(all, sum, name).Wait();
    return sum;
  }
  const Tensor parts = OfRanks(own, group.size(), rows.name);
  group.AllToAll(all, parts, name).Wait();
  // Of one rank's rows each, or what is a tree's branch already.
  const int64_t in_order = rows.from_ranks.empty() ? rows.ranks_in_order : 1;
  return SumByTree(group.size(), in_order, [&](int64_t rank) {
    return parts.Slice(rank * own.dim(0), (rank + 1) * own.dim(0));
  });
}

}  // namespace

Tensor ExpertMatrices(const Tensor& weight) {
  return weight.Reshape({weight.dim(0), -1, weight.dim(-1)});
}

Tensor OwnExperts(const Parameter& weight) {
  const int64_t experts = LocalShape(weight.global_shape, weight.shards).dim(0);
  const Tensor matrix = WeightMatrix(weight);
  return matrix.Reshape({experts, -1, matrix.dim(-1)});
}

Tensor ExpertWeights(const Parameter& weight, const ExpertRows& rows) {
  const Tensor own = OwnExperts(weight);
  if (rows.weights == nullptr) {
    return TakeMemory(own, rows, /*gradient=*/false);
  }
  const Tensor all = OfRanks(own, rows.weights->size(), rows.name);
  rows.weights->AllGather(own, all, rows.name + " weights").Wait();
  return all;
}

void AddExpertGradient(const Tensor& x, const Tensor& dy,
                       const ExpertRows& rows, Parameter& weight) {
  const Tensor own = ExpertMatrices(weight.grad);
  if (rows.weights == nullptr) {
    const Tensor held = TakeMemory(own, rows, /*gradient=*/true);
    if (rows.from_ranks.empty()) {
      GroupedMatMulAccumulate(dy, x, rows.counts, own);
    } else {
      AddInPlace(SumOfParts(x, dy, rows, own.shape(), own), own);
    }
    return;
  }
  Tensor all;
  if (rows.from_ranks.empty()) {
    all = OfRanks(own, rows.weights->size(), rows.name);
    all.FillZero();
    GroupedMatMulAccumulate(dy, x, rows.counts, all);
  } else {
    Shape shape = own.shape();
    shape.set_dim(0, rows.weights->size() * own.dim(0));
    all = SumOfParts(x, dy, rows, shape, own);
  }
  AddInPlace(SumOverRanks(all, own, rows), own);
}

Tensor BiasInput(const Tensor& dy) {
  return Full(dy.device(), {dy.dim(0), 1}, dy.dtype(), 1,
              MemoryCategory::kWorkspace, "bias input");
}

namespace {

// Rows by their experts' weights. Codes that stay on their rank are multiplied
// as such.
Tensor Product(const Tensor& x, const Parameter& weight, const ExpertRows& rows,
               bool transpose, const Tensor* biases) {
  const bool may_move = rows.weights != nullptr || rows.may_gather > 1;
  if (weight.format != WeightFormat::kFull && !may_move) {
    return GroupedMatMul(x, weight.quantized, rows.counts, transpose, biases,
                         weight.name);
  }
  return GroupedMatMul(x, ExpertWeights(weight, rows), rows.counts, transpose,
                       biases);
}

}  // namespace

Variable ExpertLinear(Tape& tape, const Variable& x, Parameter& weight,
                      Parameter* bias, std::shared_ptr<const ExpertRows> rows) {
  Tensor biases;
  if (bias != nullptr) biases = ExpertWeights(*bias, *rows);
  Tensor y = Product(x.value(), weight, *rows, /*transpose=*/true,
                     bias == nullptr ? nullptr : &biases);
  std::vector<Parameter*> parameters = {&weight};
  if (bias != nullptr) parameters.push_back(bias);
  return tape.Record(
      "expert linear", {x}, parameters, std::move(y),
      // Only the weight's gradient reads the rows.
      {weight.trainable && !x.recipe() ? x.value() : Tensor()},
      [&weight, bias, rows, recipe = x.recipe()](Tape::Gradients& gradients) {
        const Tensor dy = gradients.TakeOutput();
        if (bias != nullptr) {
          gradients.AddWeightGradient(*bias, [bias, rows, dy] {
            AddExpertGradient(BiasInput(dy), dy, *rows, *bias);
          });
        }
        gradients.AddWeightGradient(
            weight, [&weight, rows, recipe, x = gradients.Saved(0), dy] {
              AddExpertGradient(recipe ? recipe() : x, dy, *rows, weight);
            });
        if (gradients.Needs(0)) {
          gradients.Accumulate(
              0, Product(dy, weight, *rows, /*transpose=*/false, nullptr));
        }
      });
}

}  // namespace trireme
