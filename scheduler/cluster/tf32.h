// Rates of fp32 where a job asks for its products in TF32.

#ifndef TRIREME_SCHEDULER_CLUSTER_TF32_H_
#define TRIREME_SCHEDULER_CLUSTER_TF32_H_

#include "scheduler/cluster/cluster.pb.h"

namespace trireme {

// What devices say of TF32 becomes what they have for fp32, but for attention,
// which GPUs compute without it; devices that say nothing of it stay as they
// are.
void UseTf32(Cluster& cluster);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_CLUSTER_TF32_H_
