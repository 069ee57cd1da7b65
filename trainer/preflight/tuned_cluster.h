// What the choices of a plan were measured on by `trireme tune`
// (Plan.Experts.TunedFor): machines, devices and the links between their ranks.
// Elsewhere they would be slow, and nothing would say so.

#ifndef TRIREME_TRAINER_PREFLIGHT_TUNED_CLUSTER_H_
#define TRIREME_TRAINER_PREFLIGHT_TUNED_CLUSTER_H_

#include <string>

#include "absl/status/status.h"
#include "runtime/comm/communicator.h"
#include "runtime/device/compute_device.h"
#include "scheduler/plan/plan.pb.h"

namespace trireme {

// Where a rank computes.
struct RankPlace {
  std::string host;
  ComputeDevice device;
};

// The machines of the factory's world and a short measurement of the links
// between its ranks, on devices of their own, so that it counts in nobody's
// peak; of experts nothing. The same on every rank. Collective.
Plan::Experts::TunedFor MeasureTunedCluster(const RankPlace& place,
                                            CommunicatorFactory& factory);

// InvalidArgument names the first field of `tuned` by which it was another
// cluster than `here`. Rates may differ as much as measurements do that are
// short. What `tuned` does not say is not compared.
absl::Status CheckTunedCluster(const Plan::Experts::TunedFor& tuned,
                               const Plan::Experts::TunedFor& here);

}  // namespace trireme

#endif  // TRIREME_TRAINER_PREFLIGHT_TUNED_CLUSTER_H_
