// What ThreadSanitizer is told, where a program is built with it, of the
// threads of kernels and of streams. Each is a thread to it (one of its
// fibers), and is ordered with others by what CUDA orders them by: barriers,
// events, the order of a stream, and what waits for it. That the emulated GPU
// does one thing after the other orders nothing: what is not ordered is a race,
// whichever came first here. Elsewhere all of this does nothing.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_RACES_H_
#define TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_RACES_H_

#include <memory>

namespace trireme::cuda_emulation {

// Whether ThreadSanitizer is there.
bool FindsRaces();

// A thread of its: the one that runs, or one made for the emulated GPU's work,
// which lives until the owner destroys it.
class RaceThread {
 public:
  static RaceThread Current();
  static RaceThread Create();
  void Destroy();

  // What runs from now on is this thread's, and not ordered with what ran
  // before.
  void Enter() const;
  // Makes its accesses differ from those of other threads by so many steps of
  // its clock: ThreadSanitizer remembers a few accesses to a place, and where
  // all clocks go alike it would forget the same ones each time.
  void Advance(int steps) const;

 private:
  explicit RaceThread(void* fiber) : fiber_(fiber) {}

  void* fiber_;
};

// For as long as it lives, what runs is another thread's.
class RaceThreadScope {
 public:
  explicit RaceThreadScope(const RaceThread& thread)
      : before_(RaceThread::Current()) {
    thread.Enter();
  }
  ~RaceThreadScope() { before_.Enter(); }
  RaceThreadScope(const RaceThreadScope&) = delete;
  RaceThreadScope& operator=(const RaceThreadScope&) = delete;

 private:
  const RaceThread before_;
};

// What a thread did before its Release is before what one does after its
// Acquire, where that comes later. It remembers all Releases.
class OrderPoint {
 public:
  OrderPoint();

  void Release() const;
  void Acquire() const;

 private:
  std::unique_ptr<char> place_;  // ThreadSanitizer knows it by its address
};

}  // namespace trireme::cuda_emulation

#endif  // TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_RACES_H_
