// How much of the machine's memory one rank may hold.

#ifndef TRIREME_TRAINER_JOB_MEMORY_LIMIT_H_
#define TRIREME_TRAINER_JOB_MEMORY_LIMIT_H_

#include <cstdint>

#include "runtime/device/compute_device.h"
#include "trainer/job/job.pb.h"

namespace trireme {

// The job's memory_limit_bytes, or three quarters of what this process may have
// of the machine's memory (all of it, or what its control group allows),
// divided among the machine's ranks.
int64_t MemoryLimit(const Job& job, int local_ranks);
// The same for a rank that computes on `device`: of a GPU the job's
// memory_limit_bytes, or what ComputeDevice says.
int64_t MemoryLimit(const Job& job, const ComputeDevice& device,
                    int local_ranks);
// The latter, whatever the job says: what a rank may have of the host's memory.
int64_t HostMemoryLimit(int local_ranks);

}  // namespace trireme

#endif  // TRIREME_TRAINER_JOB_MEMORY_LIMIT_H_
