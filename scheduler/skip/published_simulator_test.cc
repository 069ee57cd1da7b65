// The published makespans come out of the published paths, so that what we
// compare our schedules with is what the authors measured theirs with.

#include "scheduler/skip/published_simulator.h"

#include <string>

#include "gtest/gtest.h"
#include "scheduler/skip/instance_json.h"

namespace trireme {
namespace {

constexpr char kFile[] = "scheduler/skip/testdata/skippipe_20_nodes.json";

PublishedInstance Published() {
  auto published = ReadPublishedInstance(kFile);
  EXPECT_TRUE(published.ok()) << published.status();
  return *published;
}

TEST(PublishedSimulatorTest, ReproducesSkipPipe) {
  const PublishedInstance published = Published();
  std::vector<PublishedLaunch> launches;
  for (int32_t d = 0; d < 5; ++d) {
    for (int32_t lane = 0; lane < 3; ++lane) {
      for (int32_t wave = 0; wave < 2; ++wave) {
        launches.push_back(
            {published.skippipe_paths[d], wave * 2.5 + lane, lane, wave});
      }
    }
  }
  const auto seconds = SimulateAsPublished(published.instance, launches);
  ASSERT_TRUE(seconds.ok()) << seconds.status();
  EXPECT_NEAR(*seconds, published.skippipe_s, 1e-9);
}

TEST(PublishedSimulatorTest, ReproducesCostAwarePathsWithCollisions) {
  const PublishedInstance published = Published();
  std::vector<PublishedLaunch> launches;
  for (int32_t i = 0; i < 15; ++i) {
    for (int32_t wave = 0; wave < 2; ++wave) {
      launches.push_back({published.cost_aware_paths[i],
                          wave * 2.5 + (i % 3) * 0.44, i, wave});
    }
  }
  const auto seconds = SimulateAsPublished(published.instance, launches);
  ASSERT_TRUE(seconds.ok()) << seconds.status();
  EXPECT_NEAR(*seconds, published.cost_aware_s, 1e-9);
}

// Every microbatch through all six stages, the groups' columns being the
// pipelines; two data nodes have none.
TEST(PublishedSimulatorTest, ReproducesTheFullPipeline) {
  const PublishedInstance published = Published();
  std::vector<PublishedLaunch> launches;
  for (int32_t d = 0; d < 3; ++d) {
    NodePath path;
    for (const auto& group : published.instance.groups) {
      path.push_back(group[d]);
    }
    for (int32_t lane = 0; lane < 3; ++lane) {
      for (int32_t wave = 0; wave < 3; ++wave) {
        launches.push_back({path, wave * 0.1, lane, wave});
      }
    }
  }
  const auto seconds = SimulateAsPublished(published.instance, launches);
  ASSERT_TRUE(seconds.ok()) << seconds.status();
  EXPECT_NEAR(*seconds, published.full_pipeline_s, 1e-9);
}

TEST(PublishedSimulatorTest, MendsOneLinkAndNoOther) {
  const PublishedInstance published = Published();
  const auto& before = published.instance.transfer_s;
  const auto& after = published.mended_transfer_s;
  EXPECT_NEAR(before[6][10], 132.314, 1e-3);
  EXPECT_NEAR(after[6][10], 0.0048 + 0.03125 / 0.2425 + 0.35, 1e-9);
  EXPECT_EQ(after[10][18], after[6][10]);
  for (int32_t u = 0; u < 20; ++u) {
    for (int32_t v = 0; v < 20; ++v) {
      const double expected = before[u][v] < 100 ? before[u][v] : after[6][10];
      EXPECT_EQ(after[u][v], expected);
    }
  }
}

}  // namespace
}  // namespace trireme
