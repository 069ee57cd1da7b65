// Clusters as commands read them.

#ifndef TRIREME_TRAINER_JOB_CLUSTER_FILE_H_
#define TRIREME_TRAINER_JOB_CLUSTER_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "scheduler/cluster/cluster.pb.h"

namespace trireme {

// The cluster in a file, which ResolveCluster takes. Errors name the file and
// the line of the field; a file that is not there, also what writes one.
absl::StatusOr<Cluster> LoadCluster(const std::string& path);

}  // namespace trireme

#endif  // TRIREME_TRAINER_JOB_CLUSTER_FILE_H_
