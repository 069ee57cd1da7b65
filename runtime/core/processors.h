// How many processors there are for a process and for the ranks of a machine.

#ifndef TRIREME_RUNTIME_CORE_PROCESSORS_H_
#define TRIREME_RUNTIME_CORE_PROCESSORS_H_

#include <bitset>
#include <optional>
#include <span>

namespace trireme {

inline constexpr int kMostProcessors = 1024;
using ProcessorSet = std::bitset<kMostProcessors>;

// Those that the calling thread's affinity allows; the first alone where that
// cannot be asked. Any thread.
ProcessorSet AllowedProcessors();

// How many of them may be used at once, which a control group may limit
// further; at least 1. Any thread.
int AvailableProcessors();

// Of the job's ranks on one machine, what one of them has.
struct ProcessorShare {
  int processors = 1;  // that any of the ranks may use
  int ranks = 1;
  int threads = 1;  // that the rank should compute, or computes, with

  // Processors for each thread.
  double fraction() const {
    return static_cast<double>(processors) / (ranks * threads);
  }
  // Threads wait for one another's processors.
  bool crowded() const { return fraction() < 1; }
};

// The share of rank `own` of ranks that may run on `allowed` each, and on no
// more processors at once than the quota of their control group, if any.
ProcessorShare ShareProcessors(std::span<const ProcessorSet> allowed, int own,
                               std::optional<double> quota);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CORE_PROCESSORS_H_
