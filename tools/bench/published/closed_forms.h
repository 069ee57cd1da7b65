// Step time by formula, as other configurators estimate it: for comparison
// with the simulator, and as its oracle where a formula is exact.
//
// Symbols: p stages, n microbatches, f and b seconds of one microbatch forward
// and backward on a stage, C = f + b, c seconds of one message between stages.

#ifndef TRIREME_TOOLS_BENCH_PUBLISHED_CLOSED_FORMS_H_
#define TRIREME_TOOLS_BENCH_PUBLISHED_CLOSED_FORMS_H_

#include <cstdint>
#include <vector>

#include "scheduler/costs/plan_costs.h"
#include "scheduler/plan/plan.pb.h"

namespace trireme {

struct ClosedFormInput {
  // C of each stage.
  std::vector<double> stage_s;
  int64_t microbatches = 1;  // n
  // T_PP: both directions of all hops of the slowest pipeline, one microbatch.
  double messages_s = 0;
  // T_DP: the whole gradient reduction, taken as exposed.
  double data_parallel_s = 0;
};

// Of a plan whose messages are part of its chunks' times.
ClosedFormInput ClosedFormOf(const Plan& plan, const PlanCosts& costs);

// AMP (Li et al., 2022): (n − 1)·max C + ΣC + T_PP + T_DP. Each hop is counted
// once a step.
double AmpStepSeconds(const ClosedFormInput& input);

// Pipette (Yim et al., DATE 2024), with C the largest stage:
// ⌊n/p⌋·(p·C + T_PP) + (p − 1)·C + T_DP, or (n − 1)·C + p·C + T_PP + T_DP where
// n < p. Each round trip is counted once in p microbatches.
double PipetteStepSeconds(const ClosedFormInput& input);

// 1F1B with equal stages, for c <= 0.9 f and p dividing n, exactly:
// (n + p − 1)·C + 2(p − 1)·c·n/p + 2(p − 2)·c; n·C for one stage.
double EqualStagesStepSeconds(int64_t stages, int64_t microbatches,
                              double stage_s, double message_s);

}  // namespace trireme

#endif  // TRIREME_TOOLS_BENCH_PUBLISHED_CLOSED_FORMS_H_
