// A wall clock that is set while processes run, as by a wrong time server:
// preloaded into them (LD_PRELOAD), it adds to the time what the file
// CHAOS_CLOCK says, which may change at any time. That holds seconds, signed,
// 8 bytes each: of processes that are no ranks, then of rank 0, 1 and so on.
// Clocks that never go back are left alone, as a system does; waits until a
// time of the wall clock end when that clock shows it, if it is not set
// meanwhile.

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdint>
#include <cstdlib>
#include <ctime>

namespace {

// This process's place in the file; null where there is none.
const volatile int64_t* FindPlace() {
  const char* const path = std::getenv("CHAOS_CLOCK");
  if (path == nullptr) return nullptr;
  const char* const rank = std::getenv("OMPI_COMM_WORLD_RANK");
  const size_t place =
      rank == nullptr ? 0 : 1 + std::strtoul(rank, nullptr, 10);
  const int descriptor = open(path, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return nullptr;
  struct stat info {};
  void* memory = MAP_FAILED;
  if (fstat(descriptor, &info) == 0 &&
      static_cast<size_t>(info.st_size) >= (place + 1) * sizeof(int64_t)) {
    memory = mmap(nullptr, info.st_size, PROT_READ, MAP_SHARED, descriptor, 0);
  }
  close(descriptor);
  return memory == MAP_FAILED ? nullptr
                              : static_cast<const int64_t*>(memory) + place;
}

int64_t Offset() {
  static const volatile int64_t* const place = FindPlace();
  return place == nullptr ? 0 : *place;
}

template <typename Function>
Function* Next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

// A time of the wrong clock as the system's shows it.
timespec Real(const timespec& shown) {
  return {.tv_sec = shown.tv_sec - Offset(), .tv_nsec = shown.tv_nsec};
}

}  // namespace

extern "C" int clock_gettime(clockid_t clock, timespec* time) noexcept {
  static auto* const next = Next<int(clockid_t, timespec*)>("clock_gettime");
  const int result = next(clock, time);
  if (result == 0 &&
      (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    time->tv_sec += Offset();
  }
  return result;
}

extern "C" int gettimeofday(timeval* time, void* zone) noexcept {
  static auto* const next = Next<int(timeval*, void*)>("gettimeofday");
  const int result = next(time, zone);
  if (result == 0) time->tv_sec += Offset();
  return result;
}

extern "C" time_t time(time_t* result) noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  if (result != nullptr) *result = now.tv_sec;
  return now.tv_sec;
}

extern "C" int pthread_cond_timedwait(pthread_cond_t* condition,
                                      pthread_mutex_t* mutex,
                                      const timespec* deadline) {
  static auto* const next =
      Next<int(pthread_cond_t*, pthread_mutex_t*, const timespec*)>(
          "pthread_cond_timedwait");
  // glibc keeps there whether the condition's clock is another one.
  constexpr unsigned kMonotonic = 2;
  if ((condition->__data.__wrefs & kMonotonic) != 0) {
    return next(condition, mutex, deadline);
  }
  const timespec real = Real(*deadline);
  return next(condition, mutex, &real);
}

extern "C" int pthread_mutex_timedlock(pthread_mutex_t* mutex,
                                       const timespec* deadline) noexcept {
  static auto* const next =
      Next<int(pthread_mutex_t*, const timespec*)>("pthread_mutex_timedlock");
  const timespec real = Real(*deadline);
  return next(mutex, &real);
}

extern "C" int sem_timedwait(sem_t* semaphore, const timespec* deadline) {
  static auto* const next = Next<int(sem_t*, const timespec*)>("sem_timedwait");
  const timespec real = Real(*deadline);
  return next(semaphore, &real);
}

// Abseil's locks, and gRPC's with them, wait so.
extern "C" long syscall(long number, ...) noexcept {
  static auto* const next = Next<long(long, ...)>("syscall");
  va_list list;
  va_start(list, number);
  long a[6];
  for (long& argument : a) argument = va_arg(list, long);
  va_end(list);
  constexpr long kUntilWallTime = FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME;
  timespec real{};
  if (number == SYS_futex && a[3] != 0 &&
      (a[1] & ~FUTEX_PRIVATE_FLAG) == kUntilWallTime) {
    real = Real(*reinterpret_cast<const timespec*>(a[3]));
    a[3] = reinterpret_cast<long>(&real);
  }
  return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
