// Which tensor of a bad step was the first that is not finite.

#ifndef TRIREME_TRAINER_HEALTH_NON_FINITE_H_
#define TRIREME_TRAINER_HEALTH_NON_FINITE_H_

#include <string>

#include "models/batch.h"
#include "trainer/rank/rank_model.h"

namespace trireme {

// Computes a step that updated nothing once more on its batch, updates nothing
// again, and looks at all that its units make. "the output of block 3, in
// forward of microbatch 1 on rank 2"; a weight that was none before; the
// largest gradient where only the sum of the squares of all overflows; or that
// everything is finite the second time. Of what several ranks see the first in
// the order of the computation. Collective over the world; the same on every
// rank. Errors: those of RankModel::Step.
absl::StatusOr<std::string> FindNonFinite(RankModel& model, const Batch& batch,
                                          const StepOptions& options);

}  // namespace trireme

#endif  // TRIREME_TRAINER_HEALTH_NON_FINITE_H_
