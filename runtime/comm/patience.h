// Waiting for a rank that may be at work for longer than any deadline: writing
// a checkpoint, computing a reference. Deadlines are for waits that only a
// fault makes long; here a line is logged every few minutes instead, which says
// what is waited for.

#ifndef TRIREME_RUNTIME_COMM_PATIENCE_H_
#define TRIREME_RUNTIME_COMM_PATIENCE_H_

#include <string_view>

#include "runtime/comm/communicator.h"

namespace trireme {

// Returns when the operation is done. `what`: for the log.
void AwaitPatiently(Event event, std::string_view what);

// Returns when all ranks of the group have come here.
void AwaitAllPatiently(Communicator& group, std::string_view what);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_PATIENCE_H_
