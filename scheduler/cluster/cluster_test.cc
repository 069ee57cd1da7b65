#include "scheduler/cluster/cluster.h"

#include <functional>

#include "gtest/gtest.h"

namespace trireme {
namespace {

Cluster Described(const ClusterPreset& preset) {
  const absl::StatusOr<Cluster> cluster = DescribeCluster(preset);
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  return cluster.ok() ? *cluster : Cluster();
}

TEST(Cluster, EveryPresetResolves) {
  for (const char* device : {"A100", "H100", "H200", "B200"}) {
    for (const char* network :
         {"hdr", "ndr", "xdr", "ethernet-25", "ethernet-100", "ethernet-400"}) {
      const Cluster cluster =
          Described({.device = device, .nodes = 3, .network = network});
      const absl::StatusOr<ClusterModel> model = ResolveCluster(cluster);
      ASSERT_TRUE(model.ok()) << model.status();
      EXPECT_EQ(model->num_ranks(), 24);
      EXPECT_EQ(model->node_of_rank[8], 1);
      EXPECT_TRUE(NodesAreAlike(*model, 0, 2));
      EXPECT_GT(model->LinkBetweenNodes(1, 1).bytes_per_s,
                model->LinkBetweenNodes(0, 1).bytes_per_s);
    }
  }
  EXPECT_FALSE(DescribeCluster({.device = "A1000"}).ok());
}

// What a plan with offload goes by.
TEST(Cluster, HostsHaveARateAndWhereItIsKnownASize) {
  const auto a100 = ResolveCluster(Described({.devices_per_node = 4}));
  ASSERT_TRUE(a100.ok()) << a100.status();
  // Half a DGX: 1 TB, eight channels of DDR4-3200, of which 85 % are reached.
  EXPECT_EQ(a100->nodes[0].host_memory_bytes, 1'000'000'000'000);
  EXPECT_NEAR(a100->nodes[0].host_memory_bytes_per_s, 0.85 * 8 * 25.6e9, 1);
  Cluster desk = Described({.device = "RTX4090", .devices_per_node = 1});
  const auto known = ResolveCluster(desk);
  ASSERT_TRUE(known.ok()) << known.status();
  EXPECT_EQ(known->nodes[0].host_memory_bytes, 0);
  EXPECT_NEAR(known->nodes[0].host_memory_bytes_per_s, 0.85 * 2 * 44.8e9, 1);
  EXPECT_NEAR(known->devices[0].to_device_bytes_per_s, 0.84 * 32e9, 1);
  desk.mutable_nodes(0)->clear_host_memory_bytes_per_s();
  EXPECT_EQ(ResolveCluster(desk)->nodes[0].host_memory_bytes_per_s, 50e9);
}

// Two hosts that were profiled never show equal figures. Were they unlike for
// that, placements would be looked for that go around noise.
TEST(Cluster, WhatDiffersByLessThanItsSpreadIsAlike) {
  Cluster cluster;
  for (int i = 0; i < 3; ++i) {
    Cluster::Device& device = *cluster.add_devices();
    device = Described({}).devices(0);
    device.set_name(std::string(1, static_cast<char>('a' + i)));
    device.set_achieved_bf16_flops((1 - 0.01 * i) *
                                   device.achieved_bf16_flops());
    device.set_memory_bytes(device.memory_bytes() - i);
    device.set_spread(0.05);
    Cluster::Node& node = *cluster.add_nodes();
    node.set_device(device.name());
    node.set_count(2);
    node.mutable_link()->set_bytes_per_s(1e9 * (1 + 0.001 * i));
    node.mutable_link()->set_spread(0.01);
    for (uint32_t to = 0; to < 3; ++to) {
      if (to == static_cast<uint32_t>(i)) continue;
      Cluster::NodeLink& link = *cluster.add_links();
      link.set_from(static_cast<uint32_t>(i));
      link.set_to(to);
      link.mutable_link()->set_bytes_per_s(1e8 * (1 + 0.01 * to));
      link.mutable_link()->set_spread(0.1);
    }
  }
  auto model = ResolveCluster(cluster);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_TRUE(NodesAreAlike(*model, 0, 1));
  EXPECT_TRUE(NodesAreAlike(*model, 0, 2));
  EXPECT_EQ(model->DeviceOfNode(0).achieved_bf16_flops,
            cluster.devices(1).achieved_bf16_flops());
  // The least of all, which every one of them has.
  EXPECT_EQ(model->DeviceOfNode(0).memory_bytes,
            static_cast<int64_t>(cluster.devices(2).memory_bytes() -
                                 cluster.devices(2).reserved_bytes()));
  // A spread of rates says nothing of memory.
  Cluster unlike = cluster;
  for (auto& device : *unlike.mutable_devices()) device.set_spread(0.9);
  unlike.mutable_devices(2)->set_memory_bytes(unlike.devices(2).memory_bytes() /
                                              2);
  model = ResolveCluster(unlike);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_TRUE(NodesAreAlike(*model, 0, 1));
  EXPECT_FALSE(NodesAreAlike(*model, 0, 2));
  // What is slow indeed stays so.
  cluster.mutable_links(0)->mutable_link()->set_bytes_per_s(5e7);
  model = ResolveCluster(cluster);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->LinkBetweenNodes(0, 1).bytes_per_s, 5e7);
  EXPECT_FALSE(NodesAreAlike(*model, 0, 1));
  // Nor is alike what nobody measured.
  for (auto& device : *cluster.mutable_devices()) device.clear_spread();
  model = ResolveCluster(cluster);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_NE(model->nodes[1].device, model->nodes[2].device);
}

// Four devices in two bridged pairs, on nodes of two racks.
TEST(Cluster, IslandsAndRacksHaveLinksOfTheirOwn) {
  Cluster cluster = Described({.nodes = 4, .devices_per_node = 4});
  for (int i = 0; i < 4; ++i) {
    Cluster::Node& node = *cluster.mutable_nodes(i);
    node.mutable_link()->set_bytes_per_s(1e10);
    node.set_island_devices(2);
    node.mutable_island_link()->set_bytes_per_s(1e11);
    node.set_rack(i < 2 ? "left" : "right");
  }
  cluster.mutable_rack_link()->set_bytes_per_s(5e9);
  cluster.mutable_default_link()->set_bytes_per_s(1e9);
  const auto model = ResolveCluster(cluster);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->LinkBetween(4, 5).bytes_per_s, 1e11);
  EXPECT_EQ(model->LinkBetween(5, 6).bytes_per_s, 1e10);
  EXPECT_EQ(model->LinkBetween(0, 4).bytes_per_s, 5e9);
  EXPECT_EQ(model->LinkBetween(4, 8).bytes_per_s, 1e9);
  cluster.mutable_nodes(0)->set_island_devices(3);
  EXPECT_NE(ResolveCluster(cluster).status().message().find(
                "nodes[0].island_devices: found 3"),
            std::string::npos);
  cluster.mutable_nodes(0)->set_island_devices(2);
  cluster.clear_rack_link();
  EXPECT_NE(ResolveCluster(cluster).status().message().find("rack_link"),
            std::string::npos);
}

// Eight devices behind one card get an eighth of it each.
TEST(Cluster, ASharedCardIsDivided) {
  const ClusterLink shared = {
      .latency_s = 0, .bytes_per_s = 10, .shared_bytes_per_s = 16};
  EXPECT_EQ(shared.BytesPerSecond(1), 10);
  EXPECT_EQ(shared.BytesPerSecond(8), 2);
}

TEST(Cluster, OneSlowDirectionMakesItsNodesUnlike) {
  Cluster cluster = Described({.nodes = 4});
  Cluster::NodeLink& link = *cluster.add_links();
  link.set_from(1);
  link.set_to(3);
  *link.mutable_link() = cluster.default_link();
  link.mutable_link()->set_bytes_per_s(1e9);
  const absl::StatusOr<ClusterModel> model = ResolveCluster(cluster);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->LinkBetweenNodes(1, 3).bytes_per_s, 1e9);
  EXPECT_GT(model->LinkBetweenNodes(3, 1).bytes_per_s, 1e9);
  EXPECT_TRUE(NodesAreAlike(*model, 0, 2));
  EXPECT_FALSE(NodesAreAlike(*model, 0, 1));
  EXPECT_FALSE(NodesAreAlike(*model, 1, 3));
}

// A kernel that is short takes as long as its launch, one that is small does
// not reach the rate of large ones.
TEST(Cluster, SmallKernelsAreSlow) {
  const Cluster cluster = Described({.device = "H100",
                                     .launch_s = kUsualLaunchSeconds,
                                     .ramp_s = kUsualRampSeconds});
  const auto model = ResolveCluster(cluster);
  ASSERT_TRUE(model.ok()) << model.status();
  const ClusterDevice& device = model->devices[0];
  const double rate = device.AchievedFlops(2);
  EXPECT_EQ(device.ElementwiseSeconds(1), device.launch_s);
  EXPECT_NEAR(device.ElementwiseSeconds(1e9), 1e9 / device.memory_bytes_per_s,
              1e-12);
  // As long as its work and the ramp.
  for (const double work_s : {3e-6, 1e-5, 1e-4, 1e-3}) {
    EXPECT_NEAR(device.ProductSeconds(work_s * rate, 2), work_s + 1e-5,
                0.15 * (work_s + 1e-5));
  }
  EXPECT_EQ(device.ProductSeconds(0, 2), 0);
}

// A file that a user wrote is refused with the field's name, never used.
TEST(Cluster, ErrorsNameTheField) {
  struct Case {
    const char* field;
    std::function<void(Cluster&)> edit;
  };
  const Case cases[] = {
      {"cluster.nodes: ", [](Cluster& c) { c.clear_nodes(); }},
      {"cluster.nodes[1].device: ",
       [](Cluster& c) { c.mutable_nodes(1)->set_device("V100"); }},
      {"cluster.nodes[0].count: ",
       [](Cluster& c) { c.mutable_nodes(0)->set_count(0); }},
      {"cluster.nodes[0].link.bytes_per_s: ",
       [](Cluster& c) { c.mutable_nodes(0)->clear_link(); }},
      {"cluster.collective_times[0].nodes: ",
       [](Cluster& c) { c.add_collective_times(); }},
      {"cluster.collective_times[0].kind: ",
       [](Cluster& c) {
         c.add_collective_times()->set_kind(
             static_cast<Cluster::CollectiveTime::Kind>(4));
       }},
      {"cluster.collective_times[0].ranks_per_node: ",
       [](Cluster& c) { c.add_collective_times()->set_nodes(1); }},
      {"cluster.collective_times[0].bytes_per_s: ",
       [](Cluster& c) {
         Cluster::CollectiveTime& time = *c.add_collective_times();
         time.set_nodes(2);
         time.set_ranks_per_node(1);
       }},
      {"cluster.collective_times[1]: ",
       [](Cluster& c) {
         Cluster::CollectiveTime& time = *c.add_collective_times();
         time.set_nodes(2);
         time.set_ranks_per_node(1);
         time.set_bytes_per_s(1);
         *c.add_collective_times() = c.collective_times(0);
       }},
      {"cluster.collective_times[0].nodes: ",
       [](Cluster& c) {
         Cluster::CollectiveTime& time = *c.add_collective_times();
         time.set_nodes(9);
         time.set_ranks_per_node(2);
         time.set_bytes_per_s(1);
       }},
      {"cluster.nodes[1].name: ",
       [](Cluster& c) { c.mutable_nodes(1)->set_name(c.nodes(0).name()); }},
      {"cluster.devices[0].achieved_bf16_flops: ",
       [](Cluster& c) {
         Cluster::Device& device = *c.mutable_devices(0);
         device.set_achieved_bf16_flops(1.1 * device.peak_bf16_flops());
       }},
      {"cluster.model_times[0].dtype: ",
       [](Cluster& c) { c.add_model_times()->set_dtype("int3"); }},
      {"cluster.devices[0].peak_bf16_flops: ",
       [](Cluster& c) {
         c.mutable_devices(0)->set_peak_bf16_flops(
             std::numeric_limits<double>::quiet_NaN());
       }},
      {"cluster.devices[0].product_shares[1].flops: ",
       [](Cluster& c) {
         for (int i = 0; i < 2; ++i) {
           Cluster::Device::RateShare& point =
               *c.mutable_devices(0)->add_product_shares();
           point.set_flops(1e9);
           point.set_share(0.5);
         }
       }},
      {"cluster.devices[0].attention_shares[0].share: ",
       [](Cluster& c) {
         Cluster::Device::RateShare& point =
             *c.mutable_devices(0)->add_attention_shares();
         point.set_flops(1);
         point.set_share(1.5);
       }},
      {"cluster.devices[0].reserved_bytes: ",
       [](Cluster& c) {
         c.mutable_devices(0)->set_reserved_bytes(uint64_t{1} << 60);
       }},
      {"cluster.nodes[0].host_memory_bytes_per_s: ",
       [](Cluster& c) { c.mutable_nodes(0)->set_host_memory_bytes_per_s(-1); }},
      {"cluster.nodes[0].drive_bytes_per_s: ",
       [](Cluster& c) { c.mutable_nodes(0)->set_drive_bytes_per_s(-1); }},
      {"cluster.nodes[0].drive_folder: ",
       [](Cluster& c) { c.mutable_nodes(0)->set_drive_folder("drive"); }},
      {"cluster.nodes[1].host_memory_bytes: ",
       [](Cluster& c) {
         c.mutable_nodes(1)->set_host_memory_bytes(uint64_t{1} << 60);
       }},
      {"cluster.devices[1].name: ",
       [](Cluster& c) { *c.add_devices() = c.devices(0); }},
      {"cluster.model_times[0].pieces[0].device: ",
       [](Cluster& c) {
         Cluster::ModelTimes& times = *c.add_model_times();
         times.set_dtype("bf16");
         times.add_pieces();
       }},
      {"cluster.model_times[0].pieces[0].forward_s: ",
       [](Cluster& c) {
         Cluster::ModelTimes& times = *c.add_model_times();
         times.set_dtype("bf16");
         Cluster::PieceTime& piece = *times.add_pieces();
         piece.set_device(c.devices(0).name());
         piece.set_tp(1);
         piece.set_cp(1);
         piece.set_microbatch_size(1);
       }},
      {"cluster.default_link: ", [](Cluster& c) { c.clear_default_link(); }},
      {"cluster.links[0]: ", [](Cluster& c) { c.add_links()->set_from(7); }},
  };
  for (const Case& test : cases) {
    Cluster cluster = Described({.nodes = 2});
    test.edit(cluster);
    const absl::StatusOr<ClusterModel> model = ResolveCluster(cluster);
    ASSERT_FALSE(model.ok()) << test.field;
    EXPECT_EQ(model.status().message().find(test.field), 0u) << model.status();
  }
}

}  // namespace
}  // namespace trireme
