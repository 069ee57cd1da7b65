// What a run would be, for people: printed at its start, by --dry_run and by
// `trireme inspect`.

#ifndef TRIREME_TRAINER_DESCRIBE_H_
#define TRIREME_TRAINER_DESCRIBE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "scheduler/plan.pb.h"
#include "trainer/job.h"
#include "trainer/training_setup.h"

namespace trireme {

// Parameters of the whole model.
int64_t CountParameters(const TrainingSetup& setup);

// Model, FLOPs with their formula, data and plan in a few lines.
std::string DescribeSetup(const TrainingSetup& setup, const Plan& plan,
                          const DataSummary& data);

// The exact memory of every rank of the plan, by category, from a dry step of
// each. Errors: a plan or model that cannot run.
absl::StatusOr<std::string> DescribeMemory(const TrainingSetup& setup,
                                           const Plan& plan);

}  // namespace trireme

#endif  // TRIREME_TRAINER_DESCRIBE_H_
