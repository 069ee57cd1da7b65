#include "moe/shadowed_experts.h"

#include "moe/expert_linear.h"
#include "runtime/ops/grouped_matmul.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

Shape ShapeOfAll(const ShadowedExperts& shadowed, const Tensor& own) {
  return {static_cast<int64_t>(shadowed.experts.size()), own.dim(1),
          own.dim(2)};
}

}  // namespace

ShadowedWeights::ShadowedWeights(Communicator& group,
                                 const ShadowedExperts& shadowed,
                                 const Parameter& weight,
                                 const std::string& name) {
  const Tensor own = OwnExperts(weight);
  weights_ = Tensor::Empty(own.device(), ShapeOfAll(shadowed, own), own.dtype(),
                           MemoryCategory::kCommunication, name);
  for (size_t i = 0; i < shadowed.experts.size(); ++i) {
    const auto owner = static_cast<int>(shadowed.experts[i] / own.dim(0));
    const auto at = static_cast<int64_t>(i);
    const Tensor shadow = weights_.Slice(at, at + 1);
    if (owner == group.rank()) {
      const int64_t local = shadowed.experts[i] % own.dim(0);
      shadow.CopyFrom(own.Slice(local, local + 1));
    }
    arrived_.push_back(
        group.Broadcast(shadow, owner, name + " shadowed weights"));
  }
}

const Tensor& ShadowedWeights::Wait() {
  for (Event& event : arrived_) event.Wait();
  arrived_.clear();
  return weights_;
}

void AddShadowedGradient(Communicator& group, const ShadowedExperts& shadowed,
                         const Tensor& x, const Tensor& dy, Parameter& weight,
                         const std::string& name) {
  const Tensor own = ExpertMatrices(weight.grad);
  const Tensor sums =
      Tensor::Zeros(own.device(), ShapeOfAll(shadowed, own), own.dtype(),
                    MemoryCategory::kCommunication, name);
  GroupedMatMulAccumulate(dy, x, shadowed.counts, sums);
  group.AllReduce(sums, ReduceOp::kSum, name + " shadowed gradients").Wait();
  for (size_t i = 0; i < shadowed.experts.size(); ++i) {
    if (shadowed.experts[i] / own.dim(0) != group.rank()) continue;
    const int64_t local = shadowed.experts[i] % own.dim(0);
    const auto at = static_cast<int64_t>(i);
    AddInPlace(sums.Slice(at, at + 1), own.Slice(local, local + 1));
  }
}

}  // namespace trireme
