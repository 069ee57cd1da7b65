// How much of the machine's memory one rank may hold.

#ifndef TRIREME_TRAINER_MEMORY_LIMIT_H_
#define TRIREME_TRAINER_MEMORY_LIMIT_H_

#include <cstdint>

#include "trainer/job.pb.h"

namespace trireme {

// The job's memory_limit_bytes, or three quarters of the machine's memory
// divided among its ranks.
int64_t MemoryLimit(const Job& job, int local_ranks);

}  // namespace trireme

#endif  // TRIREME_TRAINER_MEMORY_LIMIT_H_
