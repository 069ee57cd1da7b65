// The emulated GPU: the parts of CUDA's runtime that Trireme uses
// (cuda_runtime_ api.h), which run kernels on the host. A program that is
// linked to it sees one GPU; everything that is not here is missing when it is
// linked.
//
// Ends the process, with what is wrong: what CUDA forbids or leaves undefined
// (calls in host functions, copies out of blocks), and what it allows but
// Trireme does not do, since it is slow or orders more than it says: the
// default stream, asynchronous copies of memory that is not pinned.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_EMULATED_GPU_H_
#define TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_EMULATED_GPU_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "runtime/device/cuda/emulation/streams.h"

namespace trireme::cuda_emulation {

// The compute capability is 9.0, or what the environment's
// TRIREME_EMULATED_CAPABILITY says: 80, 100.

// How work is ordered from now on. Before, as the environment's
// TRIREME_EMULATED_GPU says: lazy (default), eager, or the number of a seed.
// Nothing is in flight.
void UseSchedule(Schedule schedule, uint64_t seed);

// For libraries of the emulated GPU: work for a stream. It may touch what lies
// on the device.
void Enqueue(cudaStream_t stream, std::function<void()> work);
void Enqueue(cudaStream_t stream, std::shared_ptr<Meeting> meeting);
// Refuses, with `what`, bytes that are not in one block of the device.
void CheckOnDevice(const char* what, const void* begin, size_t bytes);

}  // namespace trireme::cuda_emulation

#endif  // TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_EMULATED_GPU_H_
