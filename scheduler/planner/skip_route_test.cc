#include "scheduler/planner/skip_route.h"

#include <algorithm>

#include "gtest/gtest.h"
#include "scheduler/plan.h"
#include "scheduler/skip/skip_plan.h"
#include "scheduler/skip/validator.h"

namespace trireme {
namespace {

// Eight nodes of one device each; node 2 is far from all others.
ClusterModel FarNode() {
  Cluster cluster;
  Cluster::Device& device = *cluster.add_devices();
  device.set_name("a");
  device.set_peak_bf16_flops(1e12);
  device.set_peak_fp32_flops(1e12);
  device.set_memory_bytes(1 << 30);
  device.set_memory_bytes_per_s(1e12);
  for (int i = 0; i < 8; ++i) {
    Cluster::Node& node = *cluster.add_nodes();
    node.set_device("a");
    node.set_count(1);
    for (int other = 0; other < 8; ++other) {
      if (other == i || (i != 2 && other != 2)) continue;
      Cluster::NodeLink& link = *cluster.add_links();
      link.set_from(i);
      link.set_to(other);
      link.mutable_link()->set_bytes_per_s(1e6);
    }
  }
  cluster.mutable_default_link()->set_bytes_per_s(1e9);
  const auto model = ResolveCluster(cluster);
  EXPECT_TRUE(model.ok()) << model.status();
  return *model;
}

ModelShape Model() {
  ModelShape model;
  model.name = "test";
  model.layers = 8;
  model.hidden = 128;
  model.mlp_hidden = 512;
  model.heads = 4;
  model.tokens = 64;
  return model;
}

Plan FourStagesOfTwo() {
  Plan plan;
  plan.mutable_grid()->set_dp(2);
  plan.mutable_grid()->set_pp(4);
  plan.set_microbatch_size(1);
  plan.mutable_skip()->set_stages_per_microbatch(3);
  const auto resolved = ResolvePlan(
      plan, {.world_size = 8, .global_batch = 12, .num_blocks = 8, .heads = 4});
  EXPECT_TRUE(resolved.ok()) << resolved.status();
  return *resolved;
}

// Who skips anyway skips what is far away.
TEST(SkipRoute, AvoidsANodeBehindSlowLinks) {
  const ClusterModel cluster = FarNode();
  const Plan plan = FourStagesOfTwo();
  const auto routed = RouteSkips(Model(), cluster, plan, {.evaluations = 5000});
  ASSERT_TRUE(routed.ok()) << routed.status();
  for (const Plan::Skip::Path& path : routed->plan.skip().paths()) {
    EXPECT_EQ(std::count(path.ranks().begin(), path.ranks().end(), 2u), 0)
        << path.ShortDebugString();
  }
  EXPECT_GE(routed->makespan_s, routed->lower_bound_s);
  const auto before = SkipStepSeconds(Model(), cluster, plan);
  const auto after = SkipStepSeconds(Model(), cluster, routed->plan);
  ASSERT_TRUE(before.ok() && after.ok());
  EXPECT_GE(*after, routed->makespan_s);
  EXPECT_LT(*after, *before);
  // It is a plan like any other.
  const auto again = ResolvePlan(
      routed->plan,
      {.world_size = 8, .global_batch = 12, .num_blocks = 8, .heads = 4});
  EXPECT_TRUE(again.ok()) << again.status();
}

}  // namespace
}  // namespace trireme
