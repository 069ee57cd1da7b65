// The paths that a data node's microbatches may take.

#ifndef TRIREME_SCHEDULER_PARTIAL_CANDIDATE_PATHS_H_
#define TRIREME_SCHEDULER_PARTIAL_CANDIDATE_PATHS_H_

#include <cstdint>
#include <vector>

#include "scheduler/partial/instance.h"

namespace trireme {

struct CandidatePath {
  NodePath path;
  double solo_s = 0;
};

struct CandidateList {
  std::vector<CandidatePath> paths;  // the fastest alone first
  // None was left out.
  bool all = true;
};

// Those that the rules allow from `data_node`; of very many the fastest, of
// bounded number and time.
CandidateList CandidatePaths(const SkipInstance& instance, int32_t data_node);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PARTIAL_CANDIDATE_PATHS_H_
