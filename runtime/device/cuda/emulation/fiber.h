// A computation with a stack of its own, which the thread that made it resumes
// and which gives the thread back where it has to wait. A switch costs a few
// nanoseconds: no system call, no lock.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_FIBER_H_
#define TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_FIBER_H_

#include <cstddef>
#include <functional>

namespace trireme::cuda_emulation {

class Fiber {
 public:
  // `index` shifts the stack, so that those of many fibers do not share the
  // same lines of the processor's caches.
  explicit Fiber(int index);
  // It is not in the middle of a body.
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next Resume begins to run `body`, which outlives it. The body before
  // has ended.
  void Start(const std::function<void()>& body);
  // Runs the body until it yields (false) or ends (true).
  bool Resume();
  // Called by the body: Resume returns, and the next one goes on from here.
  void Yield();

 private:
  // Where a stack begins to run.
  static void Enter();
  void Leave();

  char* mapping_ = nullptr;
  char* stack_ = nullptr;
  size_t stack_bytes_ = 0;
  void* own_ = nullptr;      // the stack pointer while the fiber waits
  void* resumer_ = nullptr;  // that of whoever resumed it, while it runs
  const std::function<void()>* body_ = nullptr;
  // What AddressSanitizer keeps of the stacks between switches.
  void* own_fake_stack_ = nullptr;
  void* resumer_fake_stack_ = nullptr;
  const void* resumer_stack_ = nullptr;
  size_t resumer_stack_bytes_ = 0;
};

}  // namespace trireme::cuda_emulation

#endif  // TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_FIBER_H_
