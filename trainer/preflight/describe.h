// What a run would be, for people: printed at its start, by --dry_run and by
// `trireme inspect`.

#ifndef TRIREME_TRAINER_PREFLIGHT_DESCRIBE_H_
#define TRIREME_TRAINER_PREFLIGHT_DESCRIBE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/device/compute_device.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/job/job.h"
#include "trainer/rank/rank_model.h"
#include "trainer/rank/training_setup.h"

namespace trireme {

// Parameters of the whole model.
int64_t CountParameters(const TrainingSetup& setup);

// Model, FLOPs with their formula, data and plan in a few lines.
std::string DescribeSetup(const TrainingSetup& setup, const Plan& plan,
                          const DataSummary& data);

// Where a loss depends on how many samples a microbatch has, that it does and
// of how many this plan's has; else empty.
std::string DescribeMicrobatchLosses(const TrainingSetup& setup,
                                     const Plan& plan);

// The exact memory of every rank of the plan, on devices of the kind, from a
// dry step of each and what is rehearsed after it. Errors: a plan or model that
// cannot run.
absl::StatusOr<std::vector<MemoryStatistics>> PredictMemoryOfRanks(
    const TrainingSetup& setup, const Plan& plan, DeviceKind kind,
    const RankModel::BetweenSteps& rehearsal = nullptr);

// The same, with what each rank takes of its host's memory and of its drive.
absl::StatusOr<std::vector<RankModel::Needs>> PredictNeedsOfRanks(
    const TrainingSetup& setup, const Plan& plan, DeviceKind kind,
    const RankModel::BetweenSteps& rehearsal = nullptr);

// The peaks of ranks 0, 1, ..., by category.
std::string DescribeMemory(const std::vector<MemoryStatistics>& memory);
// Those of the hosts' memory, of a plan with offload; else empty.
std::string DescribeHosts(const std::vector<RankModel::Needs>& needs);
// What lies on the drive of a plan with one, what a step moves and how long the
// drive lasts so, and what is free in its folder here; else empty.
std::string DescribeDrive(const std::vector<RankModel::Needs>& needs,
                          const Plan& plan);
// ResourceExhausted where the folder's drive, on this machine, has less room
// than one rank needs.
absl::Status CheckDrive(const std::vector<RankModel::Needs>& needs,
                        const Plan& plan);

}  // namespace trireme

#endif  // TRIREME_TRAINER_PREFLIGHT_DESCRIBE_H_
