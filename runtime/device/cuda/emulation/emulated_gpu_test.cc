// Programs that no GPU would run right do not pass on the emulated one.

#include "runtime/device/cuda/emulation/emulated_gpu.h"

#include <cuda_runtime_api.h>

#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cuda/cuda_status.h"
#include "runtime/device/cuda/emulation/job_testing.h"
#include "runtime/device/cuda/emulation/kernels_testing.h"
#include "runtime/device/cuda/emulation/races.h"

namespace trireme::cuda_emulation {
namespace {

constexpr int kSeeds = 10;

class EmulatedGpu : public testing::Test {
 protected:
  void SetUp() override {
    testing::GTEST_FLAG(death_test_style) = "threadsafe";
    UseSchedule(Schedule::kLazy, 0);
  }
};

TEST_F(EmulatedGpu, SumsARowInABlock) {
  for (int seed = 0; seed < kSeeds; ++seed) {
    UseSchedule(Schedule::kRandom, seed);
    Job job(1000);
    for (int i = 0; i < 1000; ++i) job.host()[i] = static_cast<float>(i);
    job.CopyIn();
    RowSum(job.stream(), RowSumFault::kNone, job.device(), 1000);
    job.CopyOut();
    job.Synchronize();
    EXPECT_EQ(job.host()[0], 499500.0f);
  }
}

struct Fault {
  RowSumFault fault;
  const char* message;
};

class FaultyKernel : public EmulatedGpu,
                     public testing::WithParamInterface<Fault> {};

TEST_P(FaultyKernel, IsFound) {
  EXPECT_DEATH(
      {
        Job job(1000);
        for (int i = 0; i < 1000; ++i) job.host()[i] = 1;
        job.CopyIn();
        RowSum(job.stream(), GetParam().fault, job.device(), 1000);
        job.Synchronize();
      },
      GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    Faults, FaultyKernel,
    testing::Values(
        Fault{RowSumFault::kBarrierInBranch, "threads that do not come"},
        Fault{RowSumFault::kBarrierAtTwoPlaces, "a barrier at"},
        Fault{RowSumFault::kBarrierAfterReturn, "threads that do not come"},
        Fault{RowSumFault::kShuffleInBranch, "threads that do not come"},
        Fault{RowSumFault::kShuffleWithoutItself, "leaves out its caller"}));

// Sums of which some are wrong: which, depends on the order of the threads.
TEST_F(EmulatedGpu, AMissingBarrierGivesWrongSums) {
  if (FindsRaces()) GTEST_SKIP() << "races_test has them";
  int wrong = 0;
  for (int seed = 0; seed < kSeeds; ++seed) {
    UseSchedule(Schedule::kRandom, seed);
    Job job(1000);
    for (int i = 0; i < 1000; ++i) job.host()[i] = 1;
    job.CopyIn();
    RowSum(job.stream(), RowSumFault::kNoBarrier, job.device(), 1000);
    job.CopyOut();
    job.Synchronize();
    wrong += job.host()[0] != 1000.0f;
  }
  EXPECT_GE(wrong, kSeeds / 2);
}

TEST_F(EmulatedGpu, NothingRunsBeforeSomebodyWaits) {
  if (FindsRaces()) GTEST_SKIP() << "races_test has them";
  Job job(4);
  job.host()[0] = 1;
  job.CopyIn();
  job.host()[0] = 2;  // too early
  job.CopyOut();
  job.Synchronize();
  EXPECT_EQ(job.host()[0], 2.0f);
}

// Two streams that share memory: right with the event, else by luck.
TEST_F(EmulatedGpu, StreamsAreOrderedByEventsAlone) {
  if (FindsRaces()) GTEST_SKIP() << "races_test has them";
  for (const bool waits : {true, false}) {
    int wrong = 0;
    for (int seed = 0; seed < kSeeds; ++seed) {
      UseSchedule(Schedule::kRandom, seed);
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
      wrong += other.host()[63] != 1.0f;
      job.Synchronize();
      CheckCuda(cudaEventDestroy(event));
    }
    if (waits) {
      EXPECT_EQ(wrong, 0);
    } else {
      EXPECT_GT(wrong, 0);
    }
  }
}

TEST_F(EmulatedGpu, AnEventThatIsAskedForComes) {
  Job job(4);
  cudaEvent_t event = nullptr;
  CheckCuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  job.CopyIn();
  CheckCuda(cudaEventRecord(event, job.stream()));
  EXPECT_EQ(cudaEventQuery(event), cudaErrorNotReady);
  EXPECT_EQ(cudaEventQuery(event), cudaSuccess);
  // As a GPU has it.
  EXPECT_EQ(cudaGetLastError(), cudaErrorNotReady);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  CheckCuda(cudaEventDestroy(event));
}

TEST_F(EmulatedGpu, RefusesWhatIsNotItsMemory) {
  EXPECT_DEATH(
      {
        Job job(4);
        std::vector<float> pageable(4);
        (void)cudaMemcpyAsync(job.device(), pageable.data(), 4 * sizeof(float),
                              cudaMemcpyDefault, job.stream());
      },
      "nor in one that is pinned");
  EXPECT_DEATH(
      {
        Job job(4);
        (void)cudaMemsetAsync(job.device(), 0, 5 * sizeof(float), job.stream());
      },
      "not in one block");
  // The host's own hands.
  EXPECT_DEATH({ *static_cast<volatile float*>(Job(4).device()) = 1; }, "");
}

TEST_F(EmulatedGpu, RefusesCallsInHostFunctions) {
  EXPECT_DEATH(
      {
        Job job(4);
        CheckCuda(cudaLaunchHostFunc(
            job.stream(), [](void*) { (void)cudaDeviceSynchronize(); },
            nullptr));
        job.Synchronize();
      },
      "in a host function");
}

TEST_F(EmulatedGpu, RefusesTheDefaultStream) {
  EXPECT_DEATH((void)cudaStreamSynchronize(nullptr), "default stream");
}

TEST_F(EmulatedGpu, RefusesOverflowOfDynamicSharedMemory) {
  EXPECT_DEATH(
      {
        Job job(4);
        RowSum(job.stream(), RowSumFault::kSharedOverflow, job.device(), 4);
        job.Synchronize();
      },
      "");
}

TEST_F(EmulatedGpu, MemoryHoldsNaNUntilItIsWritten) {
  Job job(4);
  job.CopyOut();
  job.Synchronize();
  EXPECT_NE(job.host()[0], job.host()[0]);
}

}  // namespace
}  // namespace trireme::cuda_emulation
