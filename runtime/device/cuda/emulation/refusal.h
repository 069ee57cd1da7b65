// How the emulated GPU ends a program that no GPU would run right.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_REFUSAL_H_
#define TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_REFUSAL_H_

#include <string>

namespace trireme::cuda_emulation {

// Says what is wrong and aborts the process.
[[noreturn]] void Refuse(const std::string& what);

}  // namespace trireme::cuda_emulation

#endif  // TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_REFUSAL_H_
