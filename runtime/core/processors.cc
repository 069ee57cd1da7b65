#include "runtime/core/processors.h"

#include <sched.h>

#include <algorithm>
#include <cmath>

#include "runtime/core/control_groups.h"

namespace trireme {
namespace {

int AtMost(size_t processors, std::optional<double> quota) {
  const auto all = static_cast<double>(processors);
  return std::max(
      1, static_cast<int>(std::ceil(std::min(all, quota.value_or(all)))));
}

}  // namespace

ProcessorSet AllowedProcessors() {
  ProcessorSet allowed;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int i = 0; i < std::min(kMostProcessors, CPU_SETSIZE); ++i) {
      allowed[i] = CPU_ISSET(i, &set);
    }
  }
  if (allowed.none()) allowed.set(0);
  return allowed;
}

int AvailableProcessors() {
  return AtMost(AllowedProcessors().count(),
                LimitsOfControlGroups().processors);
}

ProcessorShare ShareProcessors(std::span<const ProcessorSet> allowed, int own,
                               std::optional<double> quota) {
  ProcessorSet any;
  size_t sum = 0;
  for (const ProcessorSet& of_rank : allowed) {
    any |= of_rank;
    sum += of_rank.count();
  }
  ProcessorShare share;
  share.ranks = static_cast<int>(allowed.size());
  share.processors = AtMost(any.count(), quota);
  share.threads = static_cast<int>(allowed[own].count());
  // Ranks that are bound have processors of their own; others share them.
  if (static_cast<int>(sum) > share.processors) {
    share.threads = std::clamp(share.processors / share.ranks, 1,
                               std::max(1, share.threads));
  }
  return share;
}

}  // namespace trireme
