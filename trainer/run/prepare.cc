#include "trainer/run/prepare.h"

#include "models/data/field_readers.h"
#include "models/family.h"
#include "runtime/core/status.h"
#include "scheduler/plan/plan.h"
#include "trainer/batches.h"

namespace trireme {

absl::StatusOr<PreparedRun> PrepareRun(const Job& job,
                                       const std::optional<Plan>& plan,
                                       int64_t ranks) {
  PreparedRun run;
  run.job = job;
  ASSIGN_OR_RETURN(run.dataset, OpenDataset(job.data()));
  ASSIGN_OR_RETURN(run.setup, ResolveJob(run.job, run.data()));
  RETURN_IF_ERROR(CheckFields(*run.dataset, AllFields(*run.setup.family)));
  const PlanContext context = PlanContextOf(run.setup, ranks);
  if (plan.has_value()) {
    ASSIGN_OR_RETURN(run.plan, ResolvePlan(*plan, context));
  } else {
    ASSIGN_OR_RETURN(DefaultedPlan defaulted, DefaultPlan(context));
    run.plan = defaulted.plan;
    run.explanation = defaulted.explanation;
  }
  return run;
}

}  // namespace trireme
