#include "runtime/device/cuda/emulation/fiber.h"

#include <sys/mman.h>

#include <cstdint>

#include "runtime/core/log.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

// Saves what a call preserves on the running stack, and goes on where the other
// stack was left. A jump rather than a return: the processor predicts returns
// by a stack of its own, which a switch would confuse.
extern "C" void TriremeSwitchStack(void** from, void* to);
asm(R"(
.text
.globl TriremeSwitchStack
.type TriremeSwitchStack, @function
TriremeSwitchStack:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  pop %rcx
  jmp *%rcx
.size TriremeSwitchStack, .-TriremeSwitchStack
)");

namespace trireme::cuda_emulation {
namespace {

constexpr size_t kStackBytes = 256 << 10;
constexpr size_t kGuardBytes = 4 << 10;
constexpr int kSavedRegisters = 6;

// The fiber whose body begins: its stack has nowhere to hand it over.
thread_local Fiber* starting = nullptr;

#if defined(__SANITIZE_ADDRESS__)
void BeginSwitch(void** fake_stack, const void* stack, size_t bytes) {
  __sanitizer_start_switch_fiber(fake_stack, stack, bytes);
}
void EndSwitch(void* fake_stack, const void** stack, size_t* bytes) {
  __sanitizer_finish_switch_fiber(fake_stack, stack, bytes);
}
#else
void BeginSwitch(void**, const void*, size_t) {}
void EndSwitch(void*, const void**, size_t*) {}
#endif

}  // namespace

Fiber::Fiber(int index) {
  void* const mapped =
      mmap(nullptr, kStackBytes + kGuardBytes, PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(mapped != MAP_FAILED);
  mapping_ = static_cast<char*>(mapped);
  // What overflows a stack ends the process.
  CHECK_EQ(mprotect(mapping_, kGuardBytes, PROT_NONE), 0);
  stack_ = mapping_ + kGuardBytes;
  stack_bytes_ = kStackBytes - static_cast<size_t>(index % 64) * 64;
}

Fiber::~Fiber() {
  CHECK(body_ == nullptr);
  munmap(mapping_, kStackBytes + kGuardBytes);
}

void Fiber::Start(const std::function<void()>& body) {
  CHECK(body_ == nullptr);
  body_ = &body;
  // Enter finds its stack as after a call: the return address, which is never
  // used, lies 8 bytes below a multiple of 16.
  auto* top = reinterpret_cast<uintptr_t*>(stack_ + stack_bytes_);
  *--top = 0;
  *--top = 0;
  *top = reinterpret_cast<uintptr_t>(&Fiber::Enter);
  for (int i = 0; i < kSavedRegisters; ++i) *--top = 0;
  own_ = top;
}

void Fiber::Enter() {
  Fiber* const self = starting;
  EndSwitch(nullptr, &self->resumer_stack_, &self->resumer_stack_bytes_);
  (*self->body_)();
  self->Leave();
}

void Fiber::Leave() {
  body_ = nullptr;
  // Null: this stack's frames are gone.
  BeginSwitch(nullptr, resumer_stack_, resumer_stack_bytes_);
  TriremeSwitchStack(&own_, resumer_);
}

bool Fiber::Resume() {
  starting = this;
  BeginSwitch(&resumer_fake_stack_, stack_, stack_bytes_);
  TriremeSwitchStack(&resumer_, own_);
  EndSwitch(resumer_fake_stack_, nullptr, nullptr);
  return body_ == nullptr;
}

void Fiber::Yield() {
  BeginSwitch(&own_fake_stack_, resumer_stack_, resumer_stack_bytes_);
  TriremeSwitchStack(&own_, resumer_);
  EndSwitch(own_fake_stack_, &resumer_stack_, &resumer_stack_bytes_);
}

}  // namespace trireme::cuda_emulation
