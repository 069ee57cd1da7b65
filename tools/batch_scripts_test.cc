// What a batch system is handed.

#include "tools/batch_scripts.h"

#include <cstdlib>
#include <filesystem>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const BatchJob kJob = {.name = "My Flowers!",
                       .nodes = 2,
                       .ranks_per_node = 4,
                       .launch = {"/opt/trireme", "launch", "my job.textproto",
                                  "--resume", "--set=name=\"a\""}};

TEST(BatchScriptsTest, SlurmRunsTheLaunchOnTheNodesItIsGiven) {
  EXPECT_EQ(SlurmScript(kJob, {"--partition=gpu"}),
            "#!/bin/bash\n"
            "#SBATCH --job-name=my-flowers\n"
            "#SBATCH --nodes=2\n"
            "#SBATCH --ntasks=8\n"
            "#SBATCH --ntasks-per-node=4\n"
            "#SBATCH --output=my-flowers-%j.txt\n"
            "#SBATCH --open-mode=append\n"
            "#SBATCH --requeue\n"
            "#SBATCH --signal=B:USR1@120\n"
            "#SBATCH --partition=gpu\n"
            "exec /opt/trireme launch 'my job.textproto' --resume "
            "'--set=name=\"a\"'\n");
}

TEST(BatchScriptsTest, AJobIsQueuedAgainByItsNumber) {
  const std::string folder = testing::TempDir() + "/scontrol";
  std::filesystem::remove_all(folder);
  ASSERT_TRUE(MakeDirectories(folder).ok());
  ASSERT_TRUE(WriteFileAtomically(folder + "/scontrol",
                                  "#!/bin/sh\n[ \"$*\" = 'requeue 17' ]\n")
                  .ok());
  std::filesystem::permissions(folder + "/scontrol",
                               std::filesystem::perms::owner_all);
  const std::string path = std::getenv("PATH");
  setenv("PATH", (folder + ":" + path).c_str(), /*overwrite=*/1);
  EXPECT_TRUE(QueueSlurmJobAgain("17").ok());
  EXPECT_THAT(MessageOf(QueueSlurmJobAgain("17; true")),
              HasSubstr("does not queue job 17; true again"));
  setenv("PATH", path.c_str(), /*overwrite=*/1);
}

TEST(BatchScriptsTest, KubernetesHasAWorkerForEachNode) {
  EXPECT_THAT(
      KubernetesJob(kJob, "registry/trireme:1"),
      AllOf(HasSubstr("kind: MPIJob\nmetadata:\n  name: \"my-flowers\"\n"),
            HasSubstr("slotsPerWorker: 4\n"),
            HasSubstr("                - \"my job.textproto\"\n"),
            HasSubstr("                - \"--set=name=\\\"a\\\"\"\n"),
            HasSubstr("                - \"--hostfile=/etc/mpi/hostfile\"\n"),
            HasSubstr("fieldRef: { fieldPath: status.podIP }"),
            HasSubstr("replicas: 2\n")));
  // What YAML takes for a number, and Kubernetes for no name.
  BatchJob numbered = kJob;
  numbered.name = "2026";
  EXPECT_THAT(KubernetesJob(numbered, "trireme"),
              HasSubstr("  name: \"run-2026\"\n"));
}

}  // namespace
}  // namespace trireme
