#include "tools/bench/published/closed_forms.h"

#include <algorithm>
#include <numeric>

#include "runtime/core/log.h"

namespace trireme {

ClosedFormInput ClosedFormOf(const Plan& plan, const PlanCosts& costs) {
  ClosedFormInput input;
  input.microbatches = plan.microbatches();
  for (const std::vector<ChunkCost>& chunks : costs.cost.chunks) {
    double& stage_s = input.stage_s.emplace_back();
    for (const ChunkCost& chunk : chunks) {
      stage_s += chunk.forward_s + chunk.backward_s;
    }
  }
  // Both formulas charge the first stage's reduction.
  for (const ChunkCost& chunk : costs.cost.chunks.front()) {
    input.data_parallel_s += (chunk.reduce_s + chunk.gather_s) *
                             static_cast<double>(costs.buckets.front());
  }
  return input;
}

double AmpStepSeconds(const ClosedFormInput& input) {
  CHECK(!input.stage_s.empty());
  const double largest =
      *std::max_element(input.stage_s.begin(), input.stage_s.end());
  const double sum =
      std::accumulate(input.stage_s.begin(), input.stage_s.end(), 0.0);
  return static_cast<double>(input.microbatches - 1) * largest + sum +
         input.messages_s + input.data_parallel_s;
}

double PipetteStepSeconds(const ClosedFormInput& input) {
  CHECK(!input.stage_s.empty());
  const double largest =
      *std::max_element(input.stage_s.begin(), input.stage_s.end());
  const auto stages = static_cast<int64_t>(input.stage_s.size());
  const double p = static_cast<double>(stages);
  if (input.microbatches < stages) {
    return static_cast<double>(input.microbatches - 1) * largest + p * largest +
           input.messages_s + input.data_parallel_s;
  }
  const int64_t rounds = input.microbatches / stages;  // whole ones
  return static_cast<double>(rounds) * (p * largest + input.messages_s) +
         (p - 1) * largest + input.data_parallel_s;
}

double EqualStagesStepSeconds(int64_t stages, int64_t microbatches,
                              double stage_s, double message_s) {
  const auto p = static_cast<double>(stages);
  const auto n = static_cast<double>(microbatches);
  if (stages == 1) return n * stage_s;
  return (n + p - 1) * stage_s + 2 * (p - 1) * message_s * n / p +
         2 * (p - 2) * message_s;
}

}  // namespace trireme
