// What the control groups that hold this process leave it of the machine.
// Containers and batch systems set such limits, and the system's own figures
// (memory, processors) do not know them.

#ifndef TRIREME_RUNTIME_CORE_CONTROL_GROUPS_H_
#define TRIREME_RUNTIME_CORE_CONTROL_GROUPS_H_

#include <cstdint>
#include <optional>
#include <string>

namespace trireme {

// Absent: not limited.
struct GroupLimits {
  std::optional<int64_t> memory_bytes;
  // Processors' worth of time; need not be whole.
  std::optional<double> processors;
};

// The least of what the process's groups and all groups above them allow, of
// versions 1 and 2 (docs.kernel.org/admin-guide/cgroup-v2.html; cgroup-v1/
// memory.html; scheduler/sched-bwc.html). What cannot be read limits nothing.
// `root` stands before /proc and the groups' mount points, in tests. Any
// thread.
GroupLimits LimitsOfControlGroups(const std::string& root = "");

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CORE_CONTROL_GROUPS_H_
