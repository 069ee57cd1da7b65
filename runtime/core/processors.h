// How many processors there are for a process.

#ifndef TRIREME_RUNTIME_CORE_PROCESSORS_H_
#define TRIREME_RUNTIME_CORE_PROCESSORS_H_

namespace trireme {

// Those that the calling thread's affinity allows, at least 1. Any thread.
int AvailableProcessors();

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CORE_PROCESSORS_H_
