#include "runtime/comm/patience.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <thread>

#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::minutes kBetweenRemarks(5);
constexpr std::chrono::microseconds kShortestSleep(20);
constexpr std::chrono::microseconds kLongestSleep(5000);

}  // namespace

void AwaitPatiently(Event event, std::string_view what) {
  const Clock::time_point start = Clock::now();
  Clock::time_point remark = start + kBetweenRemarks;
  std::chrono::microseconds sleep = kShortestSleep;
  // Unlike a wait, asking has no deadline.
  while (!event.Test()) {
    std::this_thread::sleep_for(sleep);
    sleep = std::min(2 * sleep, kLongestSleep);
    const Clock::time_point now = Clock::now();
    if (now < remark) continue;
    LOG(WARNING)
        << "has waited "
        << std::chrono::duration_cast<std::chrono::minutes>(now - start).count()
        << " minutes for '" << what << "'";
    remark = now + kBetweenRemarks;
  }
  event.Synchronize();
}

void AwaitAllPatiently(Communicator& group, std::string_view what) {
  // The sum's own buffers come from it, too.
  CpuDevice host(std::numeric_limits<int64_t>::max());
  const Tensor nothing =
      Tensor::Zeros(host, {1}, DType::kFloat32, MemoryCategory::kCommunication);
  AwaitPatiently(group.AllReduce(nothing, ReduceOp::kSum, what), what);
}

}  // namespace trireme
