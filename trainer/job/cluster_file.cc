#include "trainer/job/cluster_file.h"

#include "runtime/core/status.h"
#include "scheduler/cluster/cluster.h"
#include "trainer/config/textproto.h"

namespace trireme {

absl::StatusOr<Cluster> LoadCluster(const std::string& path) {
  Cluster cluster;
  const auto locations = ParseTextProtoFile(path, &cluster);
  if (absl::IsNotFound(locations.status())) {
    return NotFound(
        "--cluster: found no {}, expected the hardware: `trireme profile` "
        "measures it, `trireme cluster describe` knows some",
        path);
  }
  RETURN_IF_ERROR(locations.status());
  RETURN_IF_ERROR(locations->Locate(ResolveCluster(cluster).status()));
  return cluster;
}

}  // namespace trireme
