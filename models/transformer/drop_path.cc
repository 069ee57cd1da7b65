#include "models/transformer/drop_path.h"

#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/device/host.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/routing.h"

namespace trireme {
namespace {

Tensor TimesFactors(const Tensor& y, const Tensor& factors) {
  const int64_t samples = y.dim(0);
  return ScaleRows(y.Reshape({samples, y.num_elements() / samples}), factors)
      .Reshape(y.shape());
}

}  // namespace

DropPath::DropPath(uint64_t seed, std::string_view name, double rate)
    : seed_(seed ^ StableHash(name)), rate_(rate) {
  CHECK(rate >= 0 && rate < 1) << rate;
}

std::vector<double> DropPath::FactorsOf(
    int64_t step, const std::vector<uint64_t>& samples) const {
  std::vector<double> factors;
  for (const uint64_t sample : samples) {
    const RandomStream stream({.seed = seed_,
                               .step = static_cast<uint64_t>(step),
                               .sample = sample,
                               .purpose = RandomPurpose::kNoise});
    factors.push_back(stream.Uniform(0) < rate_ ? 0 : 1 / (1 - rate_));
  }
  return factors;
}

ShardedVariable DropPath::Forward(ForwardContext& context, int64_t step,
                                  const std::vector<uint64_t>& samples,
                                  const ShardedVariable& y) const {
  if (rate_ == 0) return y;
  const auto count = static_cast<int64_t>(samples.size());
  CHECK_EQ(count, y.value().dim(0));
  const Tensor exact =
      Upload<double>(y.value().device(), {count, 1}, FactorsOf(step, samples));
  const DType compute = ComputeDType(y.value().dtype());
  const Tensor factors =
      compute == DType::kFloat64 ? exact : Cast(exact, compute);
  return {context.tape.Record("drop path", {y.variable}, {},
                              TimesFactors(y.value(), factors), {factors},
                              [](Tape::Gradients& gradients) {
                                gradients.Accumulate(
                                    0, TimesFactors(gradients.TakeOutput(),
                                                    gradients.Saved(0)));
                              }),
          y.states};
}

}  // namespace trireme
