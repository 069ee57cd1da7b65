// Processes of this machine, as /proc shows them.

#ifndef TRIREME_RUNTIME_CORE_PROCESSES_H_
#define TRIREME_RUNTIME_CORE_PROCESSES_H_

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace trireme {

// This machine's name; "?" where it cannot be asked.
std::string HostName();

// Whether the process was stopped (SIGSTOP, SIGTSTP) and not continued since.
bool IsStopped(pid_t process);

// When the process began, in the system's ticks since it booted, which tells it
// from a later one of the same number. Nothing where it is gone, or dead and
// only waited for.
std::optional<int64_t> StartTicksOf(pid_t process);

// The children of `ancestor`, their children, and so on.
std::vector<pid_t> DescendantsOf(pid_t ancestor);

// From now on whatever this process starts, and that starts in turn, becomes
// its own child when its parent is gone: nothing that it started is lost to it.
void AdoptOrphans();

// Kills all descendants of this process until none is left, or `patience` has
// passed: one that waits for a device of the system ends when that answers.
void KillDescendants(std::chrono::milliseconds patience);

// Lets this process, and what it starts, have so many files and connections
// open at once, if the system does; never fewer than before. Returns how many
// it may.
int64_t AllowOpenFiles(int64_t wanted);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CORE_PROCESSES_H_
