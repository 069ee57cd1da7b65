// What a rank reads and decides before it does anything with others.

#ifndef TRIREME_TRAINER_RUN_PREPARE_H_
#define TRIREME_TRAINER_RUN_PREPARE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "models/data/dataset.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/job/job.h"
#include "trainer/job/job.pb.h"
#include "trainer/rank/training_setup.h"

namespace trireme {

struct PreparedRun {
  Job job;  // as resolved
  std::unique_ptr<Dataset> dataset;
  std::unique_ptr<Dataset> held_out;  // where the job validates
  TrainingSetup setup;
  Plan plan;
  std::string explanation;  // of a plan that nobody wrote

  DataSummary data() const { return SummaryOf(*dataset); }
};

// `job`: with defaults filled (FillJobDefaults). `plan`: as the user wrote it;
// absent: the default rule of DefaultPlan. Errors name the job's or the plan's
// field.
absl::StatusOr<PreparedRun> PrepareRun(const Job& job,
                                       const std::optional<Plan>& plan,
                                       int64_t ranks);

}  // namespace trireme

#endif  // TRIREME_TRAINER_RUN_PREPARE_H_
