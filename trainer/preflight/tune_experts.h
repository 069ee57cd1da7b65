// Measures what moves fastest between rows and experts at each load, as choices
// of a plan (Plan.Experts): Tutel's dictionary of adaptive parallelism (Hwang
// et al., "Tutel: adaptive mixture-of-experts at scale", section 3.3), keyed by
// load.

#ifndef TRIREME_TRAINER_PREFLIGHT_TUNE_EXPERTS_H_
#define TRIREME_TRAINER_PREFLIGHT_TUNE_EXPERTS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/comm/communicator.h"
#include "runtime/device/device.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/preflight/tuned_cluster.h"
#include "trainer/rank/training_setup.h"

namespace trireme {

struct TuneOptions {
  // Each time is the median of so many, after one that is not counted; those
  // that are chosen from are measured once more, twice as often.
  int repetitions = 5;
  // Where this rank computes.
  RankPlace place;
};

struct TunedExperts {
  // With move ADAPTIVE, its choices and what they were measured on.
  Plan::Experts experts;
  // For people: the seconds of each way at each load, and how much longer than
  // the choices the best way takes that is the same at all loads.
  std::string report;
};

// One layer's experts, forward and backward, with a microbatch's routes: a
// part of them goes to the experts of one rank, the others are spread. All ways
// are measured in turns, so that what else a machine does falls on all alike.
// `plan` is resolved, with ep > 1. All ranks have the slowest one's times, and
// the same result. Collective over the factory's world. Errors: a model without
// experts, ep 1.
absl::StatusOr<TunedExperts> TuneExperts(const TrainingSetup& setup,
                                         const Plan& plan, Device& device,
                                         CommunicatorFactory& factory,
                                         const TuneOptions& options = {});

}  // namespace trireme

#endif  // TRIREME_TRAINER_PREFLIGHT_TUNE_EXPERTS_H_
