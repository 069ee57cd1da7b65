// main() of multi-rank tests: every rank runs every test between MPI_Init and
// MPI_Finalize. Rank 0 reports as GoogleTest does; the others print failures
// only, with their rank. The program fails when any rank's test does.
//
// A test that ends early on one rank (ASSERT) leaves the others waiting in
// their next collective, so it ends all ranks at once.

#include <mpi.h>

#include <cstdio>
#include <cstdlib>

#include "gtest/gtest.h"

// Of the leak sanitizer, where the program is built with it.
extern "C" {
void __lsan_disable() __attribute__((weak));
void __lsan_enable() __attribute__((weak));
}

namespace {

class RankReporter : public testing::EmptyTestEventListener {
 public:
  explicit RankReporter(int rank) : rank_(rank) {}

  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "[rank %d] %s:%d: Failure\n%s\n", rank_,
                 result.file_name() ? result.file_name() : "(unknown file)",
                 result.line_number(), result.message());
  }

  void OnTestEnd(const testing::TestInfo& test) override {
    if (!test.result()->Failed()) return;
    std::fprintf(stderr, "[rank %d] FAILED %s.%s\n", rank_,
                 test.test_suite_name(), test.name());
    if (test.result()->HasFatalFailure()) {
      std::fflush(nullptr);
      MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
    }
  }

 private:
  const int rank_;
};

}  // namespace

int main(int argc, char** argv) {
  // What OpenMPI allocates here lives as long as the process.
  int provided = MPI_THREAD_SINGLE;
  if (__lsan_disable != nullptr) __lsan_disable();
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
  if (__lsan_enable != nullptr) __lsan_enable();
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (provided != MPI_THREAD_MULTIPLE) {
    std::fprintf(stderr, "[rank %d] MPI lacks MPI_THREAD_MULTIPLE\n", rank);
    MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
  }

  testing::InitGoogleTest(&argc, argv);
  testing::TestEventListeners& listeners =
      testing::UnitTest::GetInstance()->listeners();
  if (rank != 0) {
    delete listeners.Release(listeners.default_result_printer());
    delete listeners.Release(listeners.default_xml_generator());
  }
  listeners.Append(new RankReporter(rank));

  int failed = RUN_ALL_TESTS();
  MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
