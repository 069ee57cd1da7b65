#include "trainer/run/prepare.h"

#include "models/data/field_readers.h"
#include "models/family.h"
#include "runtime/core/status.h"
#include "scheduler/plan/plan.h"
#include "trainer/job/batches.h"

namespace trireme {
namespace {

// Evaluations run all of the model, of which a partial pipeline has no way.
absl::Status CheckEvaluates(const Job& job, const Plan& plan) {
  if (!plan.has_skip()) return absl::OkStatus();
  if (!job.has_validation() && job.sample().every() == 0) {
    return absl::OkStatus();
  }
  return InvalidArgument(
      "{}: found with plan.skip, expected a plan whose microbatches visit "
      "every block",
      job.has_validation() ? "validation" : "sample.every");
}

}  // namespace

absl::StatusOr<PreparedRun> PrepareRun(const Job& job,
                                       const std::optional<Plan>& plan,
                                       int64_t ranks) {
  PreparedRun run;
  run.job = job;
  ASSIGN_OR_RETURN(run.dataset, OpenDataset(job.data()));
  ASSIGN_OR_RETURN(run.setup, ResolveJob(run.job, run.data()));
  RETURN_IF_ERROR(CheckFields(*run.dataset, AllFields(*run.setup.family)));
  if (job.has_validation()) {
    ASSIGN_OR_RETURN(run.held_out, OpenValidationSamples(run.job));
  }
  const PlanContext context = PlanContextOf(run.setup, ranks);
  if (plan.has_value()) {
    ASSIGN_OR_RETURN(run.plan, ResolvePlan(*plan, context));
  } else {
    ASSIGN_OR_RETURN(DefaultedPlan defaulted, DefaultPlan(context));
    run.plan = defaulted.plan;
    run.explanation = defaulted.explanation;
  }
  RETURN_IF_ERROR(CheckEvaluates(run.job, run.plan));
  return run;
}

}  // namespace trireme
