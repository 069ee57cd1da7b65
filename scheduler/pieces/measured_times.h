// The measured times of a cluster file, and which of them a model can use.

#ifndef TRIREME_SCHEDULER_PIECES_MEASURED_TIMES_H_
#define TRIREME_SCHEDULER_PIECES_MEASURED_TIMES_H_

#include "scheduler/cluster/cluster.h"
#include "scheduler/pieces/model_shape.h"

namespace trireme {

// An entry of the model's sizes and type, without times.
Cluster::ModelTimes SizesOf(const ModelShape& model);

// Fills model.measured with the cluster's times of pieces of the model's sizes;
// empties it where there are none. Returns how many were found.
int64_t UseMeasuredTimes(const ClusterModel& cluster, ModelShape& model);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PIECES_MEASURED_TIMES_H_
