// Whether the ranks of a host have a processor for each of their threads.

#ifndef TRIREME_TRAINER_PROCESSOR_SHARE_H_
#define TRIREME_TRAINER_PROCESSOR_SHARE_H_

#include "runtime/comm/control.h"

namespace trireme {

struct ProcessorShare {
  int processors = 1;  // of the host, that its ranks may run on
  int ranks = 1;       // of the job on the host
  int threads = 1;     // that a rank computes with

  // Processors for each thread.
  double fraction() const {
    return static_cast<double>(processors) / (ranks * threads);
  }
  // Threads wait for one another's processors.
  bool crowded() const { return fraction() < 1; }
};

// Of this host, with `local_ranks` of the job on it. Hosts are taken to be
// alike: a processor counts that any rank of the world may run on. Collective.
ProcessorShare FindProcessorShare(Control& control, int local_ranks);

}  // namespace trireme

#endif  // TRIREME_TRAINER_PROCESSOR_SHARE_H_
