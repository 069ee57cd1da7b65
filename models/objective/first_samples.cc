#include "models/objective/first_samples.h"

#include <algorithm>
#include <vector>

#include "models/objective/sample_factors.h"
#include "moe/moe_tokens.h"
#include "runtime/device/host.h"
#include "runtime/ops/copy.h"

namespace trireme {
namespace {

// The classes or tokens (int32 [n, ..]) of the samples that count; of others
// none.
Tensor ClassesOf(const Tensor& classes, const std::vector<double>& factors) {
  const int64_t of_sample = classes.num_elements() / classes.dim(0);
  std::vector<uint8_t> left_out;
  for (const double factor : factors) {
    left_out.insert(left_out.end(), of_sample, factor == 0 ? 1 : 0);
  }
  return MaskedFill(
      classes,
      Upload<uint8_t>(classes.device(), classes.shape(), left_out,
                      MemoryCategory::kActivations, "classes that count"),
      /*value=*/-1, "classes that count");
}

}  // namespace

std::vector<int32_t> FirstSamples::RouteKinds(const Batch& microbatch) const {
  const std::vector<double> times = objective_.SampleTimes(microbatch);
  std::vector<int32_t> kinds;
  for (int64_t i = 0; i < microbatch.size(); ++i) {
    if (microbatch.samples[i] >= static_cast<uint64_t>(count_)) {
      kinds.push_back(kNoRouteKind);
      continue;
    }
    const double time = times.empty() ? 0 : times[i];
    kinds.push_back(static_cast<int32_t>(std::clamp<int64_t>(
        static_cast<int64_t>(time * kRouteKinds), 0, kRouteKinds - 1)));
  }
  return kinds;
}

double FirstSamples::Counted(const Batch& batch) const {
  double counted = 0;
  for (int64_t i = 0; i < batch.size(); ++i) {
    if (batch.samples[i] >= static_cast<uint64_t>(count_)) continue;
    counted += objective_.Counted(batch.Slice(i, i + 1));
  }
  return counted;
}

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
  if (target.dtype() == DType::kInt32) {
    objective_.AddLosses(context, microbatch, prediction,
                         ClassesOf(target, factors), elements);
    return;
  }
  const ComparedSamples counted =
      ScaleSamples(context, prediction, target, factors);
  objective_.AddLosses(context, microbatch, counted.prediction, counted.target,
                       elements);
}

}  // namespace trireme
