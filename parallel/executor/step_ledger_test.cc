// Times of what a device does behind the host: by its own clock, the host's
// would say when it was given.

#include "parallel/executor/step_ledger.h"

#include <chrono>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "parallel/executor/step_trace.h"
#include "runtime/device/asynchronous_cpu_device_testing.h"

namespace trireme {
namespace {

constexpr double kWork = 0.03;
// By how much a stream of another thread may be late on a busy machine.
constexpr double kLate = 0.4;

class DeviceClockTest : public testing::Test {
 protected:
  static void Work(Stream& stream, double times = 1) {
    stream.Launch([times] {
      std::this_thread::sleep_for(std::chrono::duration<double>(times * kWork));
    });
  }

  AsynchronousCpuDevice device_{int64_t{1} << 24, /*seed=*/1};
};

TEST_F(DeviceClockTest, AStepsTimesAreTheStreams) {
  Stream& compute = device_.stream();
  StepLedger ledger(/*chunks=*/1, /*pipeline=*/true, /*processor_threads=*/0,
                    &compute);
  ledger.Measure(StepCause::kForward, 0, [&] {
    Work(compute);
    ledger.Measure(StepCause::kMessages, 0, [&] { Work(compute, 2); });
    Work(compute);
  });
  ledger.Measure(StepCause::kUpdate, 0, [&] { Work(compute, 3); });
  const StepTimes times = ledger.Finish();
  EXPECT_GE(times.forward, 2 * kWork);
  EXPECT_LT(times.forward, 2 * kWork + kLate);
  EXPECT_EQ(times.costs.chunks[0].forward, times.forward);
  EXPECT_GE(times.pipeline_wait, 2 * kWork);
  EXPECT_GE(times.update, 3 * kWork);
  EXPECT_EQ(times.backward, 0);
  EXPECT_GE(times.step, times.forward + times.pipeline_wait + times.update);
}

// What the host waited for itself is not counted a second time.
TEST_F(DeviceClockTest, ABookedWaitIsNoPartOfWhatItLiesWithin) {
  Stream& compute = device_.stream();
  StepLedger ledger(1, /*pipeline=*/false, 0, &compute);
  ledger.Measure(StepCause::kClip, 0, [&] {
    Work(compute, 2);
    ledger.BookWait(StepCause::kClipWait, 2 * kWork);
  });
  const StepTimes times = ledger.Finish();
  EXPECT_EQ(times.gradient_wait, 2 * kWork);
  EXPECT_LT(times.optimizer, kLate);
  EXPECT_GE(times.step, times.gradient_wait + times.optimizer - 1e-9);
}

TEST_F(DeviceClockTest, ATraceShowsWhenStreamsRanWhatTheyWereGiven) {
  StepTrace trace(device_);
  Stream& copies = device_.stream(StreamKind::kCopyIn);
  trace.Begin(copies);
  Work(copies, 2);
  trace.End(copies, {.name = "fetch"});
  Event fetched = copies.Record();
  Stream& compute = device_.stream();
  fetched.Wait(compute);
  trace.Begin(compute);
  Work(compute);
  trace.End(compute, {.name = "forward"});
  const std::vector<TraceEvent> events = trace.Finish();
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].name, "fetch");
  EXPECT_GE(events[0].duration_ns, 1e9 * 2 * kWork);
  EXPECT_GE(events[1].start_ns, events[0].start_ns + 1e9 * 2 * kWork);
  EXPECT_GE(events[1].duration_ns, 1e9 * kWork);
  EXPECT_LT(events[1].duration_ns, 1e9 * (kWork + kLate));
}

}  // namespace
}  // namespace trireme
