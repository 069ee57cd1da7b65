// Which measured devices and links are alike: repetitions of one measurement
// differ, and what differs no more than they do says nothing.

#ifndef TRIREME_SCHEDULER_CLUSTER_LIKENESS_H_
#define TRIREME_SCHEDULER_CLUSTER_LIKENESS_H_

#include "scheduler/cluster/cluster.h"
#include "scheduler/cluster/cluster.pb.h"

namespace trireme {

// Devices of `cluster` with as much memory (to 2 %) whose rates all differ by
// no more than the larger of their spreads become one, with the medians of
// their rates and the least of their memory; likewise the links inside nodes,
// the cards, and the links between nodes, that lie within their spread of the
// median. What has no spread was not measured and stays. `model`: resolved from
// `cluster`.
void UnifyAlike(const Cluster& cluster, ClusterModel& model);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_CLUSTER_LIKENESS_H_
