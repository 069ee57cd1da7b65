// What a program does not order ThreadSanitizer finds (--config=tsan), in
// whichever order it came to it here; of what is ordered it says nothing.

#include "runtime/device/cuda/emulation/races.h"

#include <cuda_runtime_api.h>

#include <cstdlib>

#include "gtest/gtest.h"
#include "runtime/device/cuda/cuda_status.h"
#include "runtime/device/cuda/emulation/emulated_gpu.h"
#include "runtime/device/cuda/emulation/job_testing.h"
#include "runtime/device/cuda/emulation/kernels_testing.h"

namespace trireme::cuda_emulation {
namespace {

// Of a process in which ThreadSanitizer found one.
constexpr int kStatusOfRaces = 66;

class RacesTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!FindsRaces()) GTEST_SKIP() << "of --config=tsan";
    testing::GTEST_FLAG(death_test_style) = "threadsafe";
    UseSchedule(Schedule::kLazy, 0);
  }
};

void SumRow(RowSumFault fault) {
  Job job(1000);
  for (int i = 0; i < 1000; ++i) job.host()[i] = 1;
  job.CopyIn();
  RowSum(job.stream(), fault, job.device(), 1000);
  job.CopyOut();
  job.Synchronize();
  if (job.host()[0] < 0) std::abort();
}

TEST_F(RacesTest, ABarrierOrdersWhatABlockShares) {
  EXPECT_EXIT(
      {
        // A block does not race with the one before, either.
        for (int i = 0; i < 3; ++i) SumRow(RowSumFault::kNone);
        std::exit(0);
      },
      testing::ExitedWithCode(0), "");
}

// The shuffles that are left order no memory.
TEST_F(RacesTest, AMissingBarrierIsFound) {
  EXPECT_EXIT(
      {
        SumRow(RowSumFault::kNoBarrier);
        std::exit(0);
      },
      testing::ExitedWithCode(kStatusOfRaces), "RowSumKernel");
}

// Two streams that share memory.
void CopyByTwoStreams(bool waits) {
  Job job(64);
  Job other(64);
  for (int i = 0; i < 64; ++i) job.host()[i] = 1;
  job.CopyIn();
  cudaEvent_t event = nullptr;
  CheckCuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  CheckCuda(cudaEventRecord(event, job.stream()));
  if (waits) CheckCuda(cudaStreamWaitEvent(other.stream(), event, 0));
  CheckCuda(cudaMemcpyAsync(other.host(), job.device(), 64 * sizeof(float),
                            cudaMemcpyDefault, other.stream()));
  other.Synchronize();
  job.Synchronize();
  CheckCuda(cudaEventDestroy(event));
}

TEST_F(RacesTest, AnEventOrdersStreams) {
  EXPECT_EXIT(
      {
        CopyByTwoStreams(/*waits=*/true);
        std::exit(0);
      },
      testing::ExitedWithCode(0), "");
}

TEST_F(RacesTest, AMissingWaitForAnEventIsFound) {
  EXPECT_EXIT(
      {
        CopyByTwoStreams(/*waits=*/false);
        std::exit(0);
      },
      testing::ExitedWithCode(kStatusOfRaces), "cudaMemcpyAsync|memcpy");
}

// The copy may not have read it yet.
TEST_F(RacesTest, AHostThatOverwritesWhatIsBeingCopiedIsFound) {
  EXPECT_EXIT(
      {
        Job job(4);
        job.host()[0] = 1;
        job.CopyIn();
        job.host()[0] = 2;
        job.Synchronize();
        std::exit(0);
      },
      testing::ExitedWithCode(kStatusOfRaces), "data race");
}

}  // namespace
}  // namespace trireme::cuda_emulation
