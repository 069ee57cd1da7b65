#include "scheduler/cluster/tf32.h"

#include "gtest/gtest.h"
#include "scheduler/cluster/cluster.h"

namespace trireme {
namespace {

// A plan for TF32 is costed by the tensor cores' rate, half of bf16's.
TEST(Tf32Test, ProductsOfFp32HaveItsRate) {
  Cluster cluster =
      DescribeCluster({.device = "H100", .nodes = 1, .devices_per_node = 2})
          .value();
  const ClusterDevice before = ResolveCluster(cluster)->devices[0];
  UseTf32(cluster);
  const ClusterDevice after = ResolveCluster(cluster)->devices[0];
  EXPECT_EQ(before.PeakFlops(4), 67e12);
  EXPECT_EQ(after.PeakFlops(4), 494.5e12);
  EXPECT_EQ(after.AchievedFlops(4), after.AchievedFlops(2) / 2);
  for (const int64_t others : {1, 2, 8}) {
    EXPECT_EQ(after.PeakFlops(others), before.PeakFlops(others)) << others;
  }
}

// Else a plan for long sequences would promise steps several times as fast as
// they are.
TEST(Tf32Test, AttentionIsAsSlowAsWithoutIt) {
  for (const bool has_curve : {false, true}) {
    Cluster cluster =
        DescribeCluster({.device = "H100", .nodes = 1, .devices_per_node = 2})
            .value();
    for (const double flops : {1e9, 1e12}) {
      if (!has_curve) break;
      Cluster::Device::RateShare& point =
          *cluster.mutable_devices(0)->add_product_shares();
      point.set_flops(flops);
      point.set_share(flops / 2e12);
    }
    const ClusterDevice before = ResolveCluster(cluster)->devices[0];
    UseTf32(cluster);
    const ClusterDevice after = ResolveCluster(cluster)->devices[0];
    for (const double flops : {1e8, 1e11, 1e13}) {
      const double seconds = before.AttentionSeconds(flops, 4);
      EXPECT_NEAR(after.AttentionSeconds(flops, 4), seconds, 1e-9 * seconds);
      EXPECT_LT(after.ProductSeconds(flops, 4),
                before.ProductSeconds(flops, 4));
    }
  }
}

TEST(Tf32Test, ADeviceWithoutItKeepsItsRate) {
  Cluster cluster;
  Cluster::Device& device = *cluster.add_devices();
  device.set_peak_fp32_flops(1e12);
  device.set_achieved_fp32_flops(5e11);
  UseTf32(cluster);
  EXPECT_EQ(device.peak_fp32_flops(), 1e12);
  EXPECT_EQ(device.achieved_fp32_flops(), 5e11);
}

}  // namespace
}  // namespace trireme
