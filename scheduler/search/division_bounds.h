// How little time finer splits of a model can take, by what coarser ones do:
// most splits need not be run to be known as slower.

#ifndef TRIREME_SCHEDULER_SEARCH_DIVISION_BOUNDS_H_
#define TRIREME_SCHEDULER_SEARCH_DIVISION_BOUNDS_H_

#include <cstdint>
#include <map>
#include <tuple>

#include "scheduler/costs/plan_costs.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.pb.h"
#include "scheduler/search/candidates.h"

namespace trireme {

// A finer split has more ranks of tp or cp. Where each of them has no more of a
// microbatch than the ranks of a coarser split have of theirs, its arithmetic
// takes at least as long for each part: smaller kernels do not have higher
// rates. Where times were measured, the most that they gained beyond that is
// allowed for. What is sent over tp goes by the tokens that its ranks share,
// however many they are; everything else that is sent divides as arithmetic
// does, at best.
class DivisionBounds {
 public:
  explicit DivisionBounds(const ModelShape& model);

  // What a candidate's replica does with a microbatch. `plan` and `costs`: of
  // the candidate where it is fastest.
  void Add(const Candidate& candidate, const Plan& plan,
           const PlanCosts& costs);

  // No step of the candidate takes less; 0 where no coarser split is known.
  double StepSeconds(const Candidate& candidate, int64_t global_batch) const;

 private:
  // Of one microbatch through the whole model, on ranks that work in turn.
  struct Seconds {
    double arithmetic_s = 0;
    // In proportion to bytes, and all of it.
    double bytes_over_tp_s = 0;
    double over_tp_s = 0;
    double others_s = 0;
  };

  const double measured_gain_;
  // By tp, cp, sequence parallelism and the microbatch's size. Ways to share
  // the heads and experts out have the least of each.
  std::map<std::tuple<int32_t, int32_t, bool, int32_t>, Seconds> known_;
};

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SEARCH_DIVISION_BOUNDS_H_
