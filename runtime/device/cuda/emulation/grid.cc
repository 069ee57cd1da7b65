#include "runtime/device/cuda/emulation/grid.h"

#include <sanitizer/asan_interface.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "runtime/core/log.h"
#include "runtime/device/cuda/emulation/device_variables.h"
#include "runtime/device/cuda/emulation/fiber.h"
#include "runtime/device/cuda/emulation/races.h"
#include "runtime/device/cuda/emulation/refusal.h"

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;

namespace trireme::cuda_emulation {
namespace {

constexpr int kMaxThreads = 1024;
constexpr size_t kStaticSharedBytes = 48 << 10;
constexpr size_t kSharedBytes = 227 << 10;
constexpr size_t kPageBytes = 4 << 10;
// Barriers of some lanes of a warp that threads may be behind by.
constexpr int kWarpPoints = 8;

std::string PlaceText(const std::source_location& place) {
  return fmt::format("{}:{}", place.file_name(), place.line());
}

bool SamePlace(const std::source_location& a, const std::source_location& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         std::strcmp(a.file_name(), b.file_name()) == 0;
}

// As memset, of which ThreadSanitizer knows nothing: what a place held before
// it was written is nobody's doing.
void FillUnseen(void* begin, size_t bytes) {
  asm volatile("rep stosb" : "+D"(begin), "+c"(bytes) : "a"(0xFF) : "memory");
}

// A block's shared memory: static objects with gaps between them, and dynamic
// bytes that end where the next touch ends the process.
class SharedMemory {
 public:
  SharedMemory() {
    void* const mapped =
        mmap(nullptr, kStatic + kDynamic + kPageBytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(mapped != MAP_FAILED);
    begin_ = static_cast<char*>(mapped);
    CHECK_EQ(mprotect(begin_ + kStatic + kDynamic, kPageBytes, PROT_NONE), 0);
  }
  ~SharedMemory() { munmap(begin_, kStatic + kDynamic + kPageBytes); }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  void StartBlock(size_t dynamic_bytes) {
    // Who touched it in another block is forgotten.
    if (FindsRaces()) {
      CHECK(mmap(begin_, kStatic + kDynamic, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == begin_);
    }
    ASAN_UNPOISON_MEMORY_REGION(begin_, used_);
    std::memset(begin_, 0xFF, used_);
    ASAN_POISON_MEMORY_REGION(begin_, kStatic);
    used_ = 0;
    objects_.clear();
    // 128-byte alignment, as kernels declare it.
    dynamic_bytes_ = dynamic_bytes;
    const size_t rounded = (dynamic_bytes + 127) / 128 * 128;
    dynamic_ = begin_ + kStatic + kDynamic - rounded;
    std::memset(dynamic_, 0xFF, rounded);
  }

  void* Static(const void* key, size_t bytes, size_t alignment) {
    auto& object = objects_[key];
    if (object == nullptr) {
      alignment = std::max<size_t>(alignment, 16);
      const size_t offset = (used_ + alignment - 1) / alignment * alignment;
      if (offset + bytes > kStaticSharedBytes) {
        Refuse(fmt::format("{} bytes of static shared memory, of at most {}",
                           offset + bytes, kStaticSharedBytes));
      }
      object = begin_ + offset;
      used_ = offset + bytes + kGap;
      ASAN_UNPOISON_MEMORY_REGION(object, bytes);
      FillUnseen(object, bytes);
    }
    return object;
  }

  void* dynamic() const { return dynamic_; }
  size_t dynamic_bytes() const { return dynamic_bytes_; }

 private:
  static constexpr size_t kGap = 64;
  // Gaps do not count.
  static constexpr size_t kStatic = 2 * kStaticSharedBytes;
  static constexpr size_t kDynamic = 228 << 10;

  char* begin_;
  size_t used_ = 0;
  char* dynamic_ = nullptr;
  size_t dynamic_bytes_ = 0;
  std::unordered_map<const void*, char*> objects_;
};

// Lanes of a warp that have met in part.
struct Meeting {
  const char* kind;
  std::source_location place;
  uint32_t mask;
  // Of barriers.
  const OrderPoint* order = nullptr;
  uint32_t arrived = 0;
  const void* in[kWarpSize] = {};
  void* out[kWarpSize] = {};
};

// The threads of the block that runs, on one thread of the host. To
// ThreadSanitizer what the machine itself does is a thread's of its own, which
// is before what each block's threads do and after nothing.
class Machine {
 public:
  void Run(const Grid& grid, uint64_t order_seed) {
    const OrderPoint start, end;
    start.Release();
    {
      const RaceThreadScope own(race_thread_);
      start_ = &start;
      end_ = &end;
      RunBlocks(grid, order_seed);
    }
    end.Acquire();
  }

  const RaceThread& race_thread() const { return race_thread_; }
  // Of the barrier that threads of the block come to next: by turns one of two,
  // for some may have left the one before while others have not.
  const OrderPoint& barrier_order() const {
    return block_->barriers[barriers_passed_ % 2];
  }

  int Barrier(const std::source_location& place, int value) {
    if (barrier_arrived_ == 0) {
      barrier_place_ = place;
      barrier_sum_ = 0;
    } else if (!SamePlace(barrier_place_, place)) {
      Refuse(fmt::format(
          "{}: a barrier at {}, of other threads of the block "
          "at {}",
          Where(current_), PlaceText(place), PlaceText(barrier_place_)));
    }
    barrier_sum_ += value;
    if (++barrier_arrived_ == num_threads_) {
      barrier_arrived_ = 0;
      ++barriers_passed_;
      barrier_result_ = barrier_sum_;
      for (int thread = 0; thread < num_threads_; ++thread) {
        MakeReady(thread);
      }
    }
    Wait();
    return barrier_result_;
  }

  // `caller` is who called. What orders the threads, of a barrier; else null.
  const OrderPoint* Meet(const RaceThread& caller, const char* kind,
                         const std::source_location& place, uint32_t mask,
                         const void* in, void* out, Combine combine) {
    const int lane = current_ % kWarpSize;
    const int warp = current_ / kWarpSize;
    if ((mask >> lane & 1) == 0) {
      Refuse(
          fmt::format("{}: {} at {} with a mask of {:08x}, which leaves out "
                      "its caller",
                      Where(current_), kind, PlaceText(place), mask));
    }
    std::vector<Meeting>& meetings = meetings_[warp];
    auto meeting = std::find_if(
        meetings.begin(), meetings.end(), [&](const Meeting& other) {
          return other.mask == mask && other.kind == kind &&
                 SamePlace(other.place, place) &&
                 (other.arrived >> lane & 1) == 0;
        });
    if (meeting == meetings.end()) {
      meetings.push_back({.kind = kind, .place = place, .mask = mask});
      meeting = meetings.end() - 1;
      if (in == nullptr && FindsRaces()) {
        meeting->order =
            &block_->of_warps[warp][block_->warp_barriers++ % kWarpPoints];
      }
    }
    const OrderPoint* const order = meeting->order;
    if (order != nullptr) {
      const RaceThreadScope as_caller(caller);
      order->Release();
    }
    meeting->arrived |= uint32_t{1} << lane;
    meeting->in[lane] = in;
    meeting->out[lane] = out;
    if (meeting->arrived == mask) {
      combine(meeting->in, meeting->out);
      meetings.erase(meeting);
      for (int other = 0; other < kWarpSize; ++other) {
        if (mask >> other & 1) MakeReady(warp * kWarpSize + other);
      }
    }
    Wait();
    return order;
  }

  SharedMemory& shared() { return shared_; }
  int current() const { return current_; }

 private:
  // What orders the threads of one block. New in each: points remember.
  struct BlockOrder {
    explicit BlockOrder(int warps) : of_warps(warps) {}

    OrderPoint start;
    std::array<OrderPoint, 2> barriers;
    std::vector<std::array<OrderPoint, kWarpPoints>> of_warps;
    size_t warp_barriers = 0;
  };

  void RunBlocks(const Grid& grid, uint64_t order_seed) {
    CHECK(grid_ == nullptr) << "a grid within a grid";
    Check(grid);
    grid_ = &grid;
    seed_ = order_seed;
    random_.seed(static_cast<std::minstd_rand::result_type>(order_seed + 1));
    num_threads_ =
        static_cast<int>(grid.threads.x * grid.threads.y * grid.threads.z);
    while (static_cast<int>(fibers_.size()) < num_threads_) {
      fibers_.push_back(
          std::make_unique<Fiber>(static_cast<int>(fibers_.size())));
      race_threads_.push_back(RaceThread::Create());
    }
    gridDim = grid.blocks;
    blockDim = grid.threads;
    for (uint32_t z = 0; z < grid.blocks.z; ++z) {
      for (uint32_t y = 0; y < grid.blocks.y; ++y) {
        for (uint32_t x = 0; x < grid.blocks.x; ++x) {
          blockIdx = {x, y, z};
          RunBlock();
        }
      }
    }
    block_.reset();
    grid_ = nullptr;
  }

  void Check(const Grid& grid) {
    const int64_t threads =
        int64_t{grid.threads.x} * grid.threads.y * grid.threads.z;
    if (threads < 1 || threads > kMaxThreads || grid.threads.z > 64) {
      Refuse(fmt::format("{}: {} threads a block, of at most {}", grid.kernel,
                         threads, kMaxThreads));
    }
    if (grid.blocks.x < 1 || grid.blocks.x > 0x7FFFFFFF || grid.blocks.y < 1 ||
        grid.blocks.y > 65535 || grid.blocks.z < 1 || grid.blocks.z > 65535) {
      Refuse(fmt::format("{}: {} x {} x {} blocks", grid.kernel, grid.blocks.x,
                         grid.blocks.y, grid.blocks.z));
    }
    if (grid.dynamic_shared_bytes > kSharedBytes) {
      Refuse(fmt::format("{}: {} bytes of shared memory, of at most {}",
                         grid.kernel, grid.dynamic_shared_bytes, kSharedBytes));
    }
  }

  void RunBlock() {
    shared_.StartBlock(grid_->dynamic_shared_bytes);
    const int warps = (num_threads_ + kWarpSize - 1) / kWarpSize;
    ready_.assign(warps, 0);
    meetings_.resize(warps);
    barrier_arrived_ = 0;
    barriers_passed_ = 0;
    ended_ = 0;
    block_ = std::make_unique<BlockOrder>(FindsRaces() ? warps : 0);
    block_->start.Release();
    // Threads of two blocks are seldom the same to ThreadSanitizer.
    if (FindsRaces()) first_fiber_ = static_cast<int>(random_() % num_threads_);
    for (int thread = 0; thread < num_threads_; ++thread) {
      fibers_[FiberOf(thread)]->Start(thread_body_);
      MakeReady(thread);
    }
    // A warp runs while it can, but for a quarter of the random blocks.
    const bool mixes_warps = seed_ > 1 && random_() % 4 == 0;
    int warp = 0;
    while (ended_ < num_threads_) {
      if (mixes_warps || ready_[warp] == 0) warp = ChooseWarp(warps);
      RunThread(warp * kWarpSize + ChooseLane(ready_[warp]));
    }
  }

  int FiberOf(int thread) const {
    return (thread + first_fiber_) % num_threads_;
  }

  // Of each thread, on its fiber.
  void RunBody() {
    const RaceThread& self = race_threads_[FiberOf(current_)];
    const int steps = FindsRaces() ? static_cast<int>(random_() % 32) : 0;
    const RaceThreadScope as_thread(self);
    start_->Acquire();
    block_->start.Acquire();
    self.Advance(steps);
    grid_->body();
    end_->Release();
  }

  int ChooseWarp(int warps) {
    const int first = seed_ > 1 ? static_cast<int>(random_() % warps) : 0;
    for (int i = 0; i < warps; ++i) {
      const int warp = seed_ == 1 ? warps - 1 - i : (first + i) % warps;
      if (ready_[warp] != 0) return warp;
    }
    RefuseDeadlock();
  }

  int ChooseLane(uint32_t ready) {
    if (seed_ == 0) return std::countr_zero(ready);
    if (seed_ == 1) return 31 - std::countl_zero(ready);
    const int turn = static_cast<int>(random_() % kWarpSize);
    return (std::countr_zero(std::rotr(ready, turn)) + turn) % kWarpSize;
  }

  void RunThread(int thread) {
    ready_[thread / kWarpSize] &= ~(uint32_t{1} << thread % kWarpSize);
    current_ = thread;
    const auto index = static_cast<uint32_t>(thread);
    threadIdx = {index % blockDim.x, index / blockDim.x % blockDim.y,
                 index / blockDim.x / blockDim.y};
    if (fibers_[FiberOf(thread)]->Resume()) ++ended_;
  }

  void MakeReady(int thread) {
    ready_[thread / kWarpSize] |= uint32_t{1} << thread % kWarpSize;
  }
  void Wait() { fibers_[FiberOf(current_)]->Yield(); }

  std::string Where(int thread) const {
    return fmt::format("{}, block ({}, {}, {}), thread {}", grid_->kernel,
                       blockIdx.x, blockIdx.y, blockIdx.z, thread);
  }

  [[noreturn]] void RefuseDeadlock() {
    std::string waits;
    for (size_t warp = 0; warp < meetings_.size(); ++warp) {
      for (const Meeting& meeting : meetings_[warp]) {
        waits += fmt::format(
            "\n  warp {}: {} at {} waits for lanes {:08x} of {:08x}", warp,
            meeting.kind, PlaceText(meeting.place),
            meeting.mask & ~meeting.arrived, meeting.mask);
      }
    }
    if (barrier_arrived_ > 0) {
      waits += fmt::format("\n  the barrier at {} waits for {} of {} threads",
                           PlaceText(barrier_place_),
                           num_threads_ - barrier_arrived_, num_threads_);
    }
    Refuse(
        fmt::format("{}: threads wait for threads that do not come, {} have "
                    "ended:{}",
                    Where(current_), ended_, waits));
  }

  const Grid* grid_ = nullptr;
  uint64_t seed_ = 0;
  std::minstd_rand random_;
  int num_threads_ = 0;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  const std::function<void()> thread_body_ = [this] { RunBody(); };
  SharedMemory shared_;
  const RaceThread race_thread_ = RaceThread::Create();
  std::vector<RaceThread> race_threads_;  // of the fibers
  // Of the grid.
  const OrderPoint* start_ = nullptr;
  const OrderPoint* end_ = nullptr;

  // Of the block.
  std::unique_ptr<BlockOrder> block_;
  int first_fiber_ = 0;  // of thread 0
  int current_ = 0;
  int ended_ = 0;
  std::vector<uint32_t> ready_;  // lanes, by warp
  std::vector<std::vector<Meeting>> meetings_;
  std::source_location barrier_place_;
  int barrier_arrived_ = 0;
  int barriers_passed_ = 0;
  int barrier_sum_ = 0;
  int barrier_result_ = 0;
};

// Kernels are free functions that name no machine: there is one.
Machine& TheMachine() {
  static auto* const machine = new Machine;
  return *machine;
}

}  // namespace

void RunGrid(const Grid& grid, uint64_t order_seed) {
  TheMachine().Run(grid, order_seed);
}

int BlockBarrier(const std::source_location& place, int value) {
  Machine& machine = TheMachine();
  const OrderPoint& order = machine.barrier_order();
  order.Release();
  int sum = 0;
  {
    const RaceThreadScope as_machine(machine.race_thread());
    sum = machine.Barrier(place, value);
  }
  order.Acquire();
  return sum;
}

void WarpCollective(const char* kind, const std::source_location& place,
                    uint32_t mask, const void* in, void* out, Combine combine) {
  Machine& machine = TheMachine();
  const RaceThread caller = RaceThread::Current();
  const OrderPoint* order = nullptr;
  {
    const RaceThreadScope as_machine(machine.race_thread());
    order = machine.Meet(caller, kind, place, mask, in, out, combine);
  }
  if (order != nullptr) order->Acquire();
}

void* StaticSharedMemory(const void* key, size_t bytes, size_t alignment) {
  Machine& machine = TheMachine();
  const RaceThreadScope as_machine(machine.race_thread());
  return machine.shared().Static(key, bytes, alignment);
}
void* DynamicSharedMemory() { return TheMachine().shared().dynamic(); }
size_t DynamicSharedBytes() { return TheMachine().shared().dynamic_bytes(); }

int LaneIndex() { return TheMachine().current() % kWarpSize; }

}  // namespace trireme::cuda_emulation
