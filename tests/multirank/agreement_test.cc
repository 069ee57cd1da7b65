// Ranks of MPI that were started with unlike jobs.

#include "trainer/job/agreement.h"

#include <numeric>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/comm/control.h"
#include "runtime/comm/mpi/mpi_world.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

class TenSamples final : public Dataset {
 public:
  int64_t size() const override { return 10; }
  int64_t num_classes() const override { return 0; }
  std::string class_name(int64_t) const override { return ""; }
  absl::StatusOr<Sample> ReadParts(int64_t, const SampleParts&) const override {
    return Sample();
  }
};

TEST(AgreementTest, EveryRankHearsWhichOneHasAnotherJob) {
  const auto world = MpiWorld::Create(nullptr, nullptr);
  ASSERT_TRUE(world.ok()) << world.status();
  std::vector<int> ranks((*world)->world_size());
  std::iota(ranks.begin(), ranks.end(), 0);
  const auto everyone = (*world)->Create(ranks, "agreement");
  Control control(*everyone);
  Job job;
  job.set_steps(10);
  EXPECT_TRUE(AgreeOnJob(control, job, Plan(), TenSamples()).ok());
  const int last = control.size() - 1;
  if (control.rank() == last) job.set_steps(20);
  EXPECT_EQ(MessageOf(AgreeOnJob(control, job, Plan(), TenSamples())),
            fmt::format("rank {}: job.steps: found 20, expected 10, as on "
                        "rank 0",
                        last));
}

}  // namespace
}  // namespace trireme
