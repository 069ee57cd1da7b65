// Reads an instance with published paths from JSON: testdata/
// skippipe_20_nodes.json shows the fields. Errors: NotFound, or InvalidArgument
// with the file and the missing field; the types of fields are trusted.

#ifndef TRIREME_TOOLS_BENCH_PUBLISHED_SKIPPIPE_INSTANCE_H_
#define TRIREME_TOOLS_BENCH_PUBLISHED_SKIPPIPE_INSTANCE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/partial/instance.h"

namespace trireme {

struct PublishedInstance {
  // With the published gap of 0.13 s, 3 slots, and 6 visits to each node
  // outside group 0, as the published planner assigns them.
  SkipInstance instance;
  // The same network with the link NL-London at the rate of its neighbours.
  std::vector<std::vector<double>> mended_transfer_s;
  // One path for each data node.
  std::vector<NodePath> skippipe_paths;
  // Three paths for each data node, without collision avoidance.
  std::vector<NodePath> cost_aware_paths;
  double full_pipeline_s = 0;
  double hop_count_s = 0;
  double cost_aware_s = 0;
  double skippipe_s = 0;
};

absl::StatusOr<PublishedInstance> ReadPublishedInstance(
    const std::string& file);

}  // namespace trireme

#endif  // TRIREME_TOOLS_BENCH_PUBLISHED_SKIPPIPE_INSTANCE_H_
