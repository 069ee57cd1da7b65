// N ranks as threads of one process, for unit tests of parallel code.
//
// The semantics are the strictest that communicator.h allows, so that what
// works here works on any implementation: an operation returns at once, a
// collective is done when all ranks have started it, a message when both sides
// have. Ranks whose collectives do not match (kind, type, sizes) end the
// process with a message; so does a wait for a rank that has already returned,
// and one that passes the deadline. Groups of one get a SingleCommunicator.

#ifndef TRIREME_RUNTIME_COMM_THREADS_THREAD_WORLD_H_
#define TRIREME_RUNTIME_COMM_THREADS_THREAD_WORLD_H_

#include <chrono>
#include <functional>

#include "runtime/comm/communicator.h"

namespace trireme {

// Runs body(factory, rank) on `size` threads and returns when all have. A
// rank's GoogleTest failures are the test's; after a fatal one (ASSERT) its
// peers must not wait for it any more.
void RunThreadRanks(
    int size, const std::function<void(CommunicatorFactory&, int rank)>& body,
    std::chrono::milliseconds deadline = std::chrono::seconds(60));

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_THREADS_THREAD_WORLD_H_
