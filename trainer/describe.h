// What a run would be, for people: printed at its start, by --dry_run and by
// `trireme inspect`.

#ifndef TRIREME_TRAINER_DESCRIBE_H_
#define TRIREME_TRAINER_DESCRIBE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/device/compute_device.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/job.h"
#include "trainer/rank_model.h"
#include "trainer/training_setup.h"

namespace trireme {

// Parameters of the whole model.
int64_t CountParameters(const TrainingSetup& setup);

// Model, FLOPs with their formula, data and plan in a few lines.
std::string DescribeSetup(const TrainingSetup& setup, const Plan& plan,
                          const DataSummary& data);

// The exact memory of every rank of the plan, on devices of the kind, from a
// dry step of each and what is rehearsed after it. Errors: a plan or model that
// cannot run.
absl::StatusOr<std::vector<MemoryStatistics>> PredictMemoryOfRanks(
    const TrainingSetup& setup, const Plan& plan, DeviceKind kind,
    const RankModel::BetweenSteps& rehearsal = nullptr);

// The peaks of ranks 0, 1, ..., by category.
std::string DescribeMemory(const std::vector<MemoryStatistics>& memory);

}  // namespace trireme

#endif  // TRIREME_TRAINER_DESCRIBE_H_
