#include "models/objective/first_samples.h"

#include <algorithm>
#include <vector>

#include "models/objective/sample_factors.h"

namespace trireme {

void FirstSamples::AddLosses(ForwardContext& context, const Batch& microbatch,
                             const ShardedVariable& prediction,
                             const Tensor& target, int64_t elements) const {
  std::vector<double> factors;
  for (const uint64_t sample : microbatch.samples) {
    factors.push_back(sample < static_cast<uint64_t>(count_) ? 1 : 0);
  }
  if (std::find(factors.begin(), factors.end(), 0) == factors.end()) {
    objective_.AddLosses(context, microbatch, prediction, target, elements);
    return;
  }
  const ComparedSamples counted =
      ScaleSamples(context, prediction, target, factors);
  objective_.AddLosses(context, microbatch, counted.prediction, counted.target,
                       elements);
}

}  // namespace trireme
