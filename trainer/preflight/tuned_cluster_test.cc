// A table of another cluster would be slow, and nothing would say so: what was
// measured on one is told from what another has.

#include "trainer/preflight/tuned_cluster.h"

#include <mutex>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using TunedFor = Plan::Experts::TunedFor;

TEST(TunedClusterTest, EveryRankKnowsTheMachinesAndTheirLinks) {
  std::mutex mutex;
  std::vector<TunedFor> found;
  RunThreadRanks(3, [&](CommunicatorFactory& factory, int rank) {
    const TunedFor cluster =
        MeasureTunedCluster({.host = rank < 2 ? "a" : "b"}, factory);
    const std::lock_guard lock(mutex);
    found.push_back(cluster);
  });
  for (const TunedFor& cluster : found) {
    EXPECT_EQ(cluster.machines(), 2u);
    EXPECT_EQ(cluster.machine_ranks(), 2u);
    EXPECT_FALSE(cluster.device().empty());
    EXPECT_GT(cluster.within_bytes_per_s(), 0);
    EXPECT_GT(cluster.between_bytes_per_s(), 0);
    EXPECT_EQ(cluster.SerializeAsString(), found[0].SerializeAsString());
  }
}

TEST(TunedClusterTest, TheFirstDifferenceIsNamed) {
  TunedFor here;
  here.set_machines(2);
  here.set_machine_ranks(4);
  here.set_device("NVIDIA H200");
  here.set_within_bytes_per_s(4e11);
  here.set_between_bytes_per_s(5e10);
  const auto message = [&](const TunedFor& tuned) {
    return MessageOf(CheckTunedCluster(tuned, here));
  };
  const std::string again =
      ", which choices are measured for again by trireme tune";
  EXPECT_EQ(message(TunedFor()), "");
  TunedFor tuned = here;
  EXPECT_EQ(message(tuned), "");
  tuned.set_between_bytes_per_s(2e10);
  EXPECT_EQ(message(tuned), "");
  tuned.set_between_bytes_per_s(5e9);
  EXPECT_EQ(message(tuned),
            "plan.experts.tuned_for.between_bytes_per_s: found 5e+09, expected "
            "about 5e+10 as measured here" +
                again);
  tuned.set_within_bytes_per_s(4e12);
  EXPECT_EQ(message(tuned),
            "plan.experts.tuned_for.within_bytes_per_s: found 4e+12, expected "
            "about 4e+11 as measured here" +
                again);
  tuned.set_device("NVIDIA A100");
  EXPECT_EQ(message(tuned),
            "plan.experts.tuned_for.device: found 'NVIDIA A100', expected "
            "'NVIDIA H200'" +
                again);
  tuned.set_machine_ranks(8);
  EXPECT_EQ(
      message(tuned),
      "plan.experts.tuned_for.machine_ranks: found 8, expected 4" + again);
  tuned.set_machines(1);
  EXPECT_EQ(message(tuned),
            "plan.experts.tuned_for.machines: found 1, expected 2" + again);
}

}  // namespace
}  // namespace trireme
