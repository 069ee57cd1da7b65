#include "trainer/preflight/cluster_devices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "trainer/config/textproto.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

constexpr int64_t kH100Bytes = 85'000'000'000;

Cluster TwoNodes() {
  Cluster cluster;
  EXPECT_TRUE(ParseTextProto(R"(
devices { name: "H100" memory_bytes: 85900000000 reserved_bytes: 9000000000 }
devices { name: "cpu of b" memory_bytes: 5000000000 reserved_bytes: 1000000000 }
nodes { name: "a" device: "H100" count: 2 }
nodes { name: "b" device: "cpu of b" count: 2 }
)",
                             "cluster", &cluster)
                  .ok());
  return cluster;
}

std::vector<RankDevice> AsItSays() {
  const RankDevice gpu = {.host = "a",
                          .product = "NVIDIA H100 80GB HBM3",
                          .count = 2,
                          .memory_bytes = kH100Bytes};
  const RankDevice processor = {
      .host = "b", .product = "", .count = 2, .memory_bytes = 4'000'000'000};
  return {gpu, gpu, processor, processor};
}

TEST(ClusterDevices, WhatTheFileSaysIsWell) {
  EXPECT_THAT(CompareDevices(TwoNodes(), AsItSays()), IsEmpty());
  EXPECT_THAT(CompareDevices(DevicesOnly(TwoNodes()), AsItSays()), IsEmpty());
  EXPECT_EQ(DevicesText(AsItSays()),
            "1 host with 2 x NVIDIA H100 80GB HBM3, 79.2 GiB each; 1 host with "
            "2 x cpu, 3.73 GiB each");
}

// A job would begin on processors, or on other GPUs than it was planned for.
TEST(ClusterDevices, AnotherKindIsNamedOnceForItsHost) {
  auto ranks = AsItSays();
  ranks[0].product = ranks[1].product = "NVIDIA A100-SXM4-80GB";
  EXPECT_THAT(
      CompareDevices(TwoNodes(), ranks),
      ElementsAre(StartsWith("host a: cluster.nodes[0].device: found NVIDIA "
                             "A100-SXM4-80GB, expected H100; ")));
  ranks[0] = ranks[1] = {
      .host = "a", .product = "", .count = 2, .memory_bytes = kH100Bytes};
  EXPECT_THAT(CompareDevices(TwoNodes(), ranks),
              ElementsAre(StartsWith("host a: cluster.nodes[0].device: found "
                                     "cpu, expected H100; ")));
  ranks = AsItSays();
  ranks[3].product = "NVIDIA H200";
  EXPECT_THAT(CompareDevices(TwoNodes(), ranks),
              ElementsAre(HasSubstr("found NVIDIA H200, expected cpu of b")));
}

// Two ranks would share a GPU where one has failed.
TEST(ClusterDevices, FewerGpusAreNamed) {
  auto ranks = AsItSays();
  ranks[0].count = ranks[1].count = 1;
  EXPECT_THAT(CompareDevices(TwoNodes(), ranks),
              ElementsAre(StartsWith(
                  "host a: cluster.nodes[0].count: found 1, expected 2; ")));
  ranks[0].count = ranks[1].count = 8;
  EXPECT_THAT(CompareDevices(TwoNodes(), ranks), IsEmpty());
}

// Two names of one machine: its processors would be counted twice.
TEST(ClusterDevices, MoreRanksOnAMachineThanItsNodeHasAreNamed) {
  auto ranks = AsItSays();
  ranks[2].count = ranks[3].count = 4;
  EXPECT_THAT(CompareDevices(TwoNodes(), ranks),
              ElementsAre(HasSubstr("found 4, expected 2; are two of")));
}

TEST(ClusterDevices, FewerRanksThanDevicesAreWell) {
  auto ranks = AsItSays();
  ranks.pop_back();
  ranks[2].count = 1;
  EXPECT_THAT(CompareDevices(TwoNodes(), ranks), IsEmpty());
}

// A plan that needs it would be refused, or fail, when the job begins.
TEST(ClusterDevices, LessMemoryIsNamedWithBothFigures) {
  auto ranks = AsItSays();
  ranks[1].memory_bytes = kH100Bytes / 2;
  ranks[2].memory_bytes = 3'500'000'000;
  EXPECT_THAT(CompareDevices(TwoNodes(), ranks),
              ElementsAre(StartsWith("host a: cluster.devices[0].memory_bytes: "
                                     "found 39.6 GiB, expected 80.0 GiB; "),
                          StartsWith("host b: cluster.devices[1].memory_bytes: "
                                     "found 3.26 GiB, expected 3.73 GiB; ")));
}

}  // namespace
}  // namespace trireme
