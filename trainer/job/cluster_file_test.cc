#include "trainer/job/cluster_file.h"

#include <gtest/gtest.h>

#include <string>

#include "runtime/core/file.h"

namespace trireme {
namespace {

TEST(ClusterFile, MistakesHaveFileAndLine) {
  const std::string path = testing::TempDir() + "/cluster.textproto";
  ASSERT_TRUE(WriteFileAtomically(path, R"(devices {
  name: "a"
  peak_bf16_flops: 1e12
  peak_fp32_flops: 1e12
  memory_bytes: 1000000000
  memory_bytes_per_s: 1e11
}
nodes {
  device: "a"
  count: 2
  link {
    bytes_per_s: 0
  }
}
)")
                  .ok());
  const auto cluster = LoadCluster(path);
  ASSERT_FALSE(cluster.ok());
  EXPECT_EQ(cluster.status().message().find(
                path + ":12: cluster.nodes[0].link.bytes_per_s: found 0"),
            0u)
      << cluster.status();
}

TEST(ClusterFile, OneThatIsNotThereSaysWhatWritesIt) {
  const auto cluster = LoadCluster(testing::TempDir() + "/none.textproto");
  ASSERT_FALSE(cluster.ok());
  EXPECT_NE(cluster.status().message().find("trireme profile"),
            std::string::npos)
      << cluster.status();
}

}  // namespace
}  // namespace trireme
