// What a dry run says of a drive, and whether it fails, does not depend on how
// its folder is written.

#include "trainer/preflight/describe.h"

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/dit/dit_family.h"
#include "runtime/core/status.h"
#include "trainer/config/local_path.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(DescribeDriveTest, AFolderThatIsNotYetThereIsOnTheDriveOfThoseAboveIt) {
  const std::vector<RankModel::Needs> little = {
      {.drive_bytes = 1 << 20,
       .drive_step = {.read = 4 << 20, .written = 2 << 20}}};
  const std::vector<RankModel::Needs> all = {
      {.drive_bytes = int64_t{1} << 60,
       .drive_step = {.read = 1, .written = 1}}};
  for (const std::string& folder :
       {testing::TempDir() + "/not/there", std::string("not_there"),
        std::string("not/there")}) {
    Plan plan;
    plan.mutable_offload()->mutable_nvme()->set_folder(folder);
    EXPECT_THAT(DescribeDrive(little, plan),
                HasSubstr("are free there on this machine"))
        << folder;
    EXPECT_TRUE(CheckDrive(little, plan).ok()) << folder;
    EXPECT_TRUE(absl::IsResourceExhausted(CheckDrive(all, plan))) << folder;
  }
}

// A host file's paths= hold of it, too.
TEST(DescribeDriveTest, AHostsDriveMayBeMountedElsewhere) {
  Plan plan;
  plan.mutable_offload()->mutable_nvme()->set_folder("/drive/states");
  const std::string here =
      std::filesystem::path(testing::TempDir() + "/here").lexically_normal();
  setenv(kPathsVariable, ("/drive:" + here).c_str(), /*overwrite=*/1);
  const std::string text = DescribeDrive({}, plan);
  const absl::Status status =
      CheckDrive({{.drive_bytes = int64_t{1} << 60}}, plan);
  unsetenv(kPathsVariable);
  EXPECT_THAT(text, HasSubstr("in " + here + "/states"));
  EXPECT_THAT(MessageOf(status), HasSubstr(here + "/states with "));
}

// What a drive lasts for goes by what is written: weights that stay are read
// only.
TEST(DescribeDriveTest, ADriveLastsByWhatIsWritten) {
  Plan plan;
  Plan::Offload::Nvme& nvme = *plan.mutable_offload()->mutable_nvme();
  nvme.set_folder(testing::TempDir());
  nvme.set_drive_endurance_tbw(1);
  const auto text = [&](int64_t written) {
    return DescribeDrive(
        {{.drive_bytes = 1 << 20,
          .drive_step = {.read = 8'000'000'000, .written = written}}},
        plan);
  };
  EXPECT_THAT(text(1'000'000'000), HasSubstr("1 TB of writes are 1e+03 steps"));
  EXPECT_THAT(text(0), Not(HasSubstr("TB of writes")));
}

// Whoever compares plans is told that these train different things.
TEST(DescribeMicrobatchLossesTest, SaysOfHowManySamplesALossIs) {
  using Over = MoeConfig::BalanceOver;
  Plan plan;
  plan.set_microbatch_size(3);
  const auto text = [&](const MoeConfig& moe) {
    DitConfig config;
    config.hidden = 32;
    config.layers = 2;
    config.heads = 4;
    config.mlp_hidden = 64;
    config.classes = 10;
    config.image = {.channels = 1, .height = 8, .width = 8};
    config.moe = moe;
    TrainingSetup setup;
    setup.family = MakeDitFamily(config);
    return DescribeMicrobatchLosses(setup, plan);
  };
  const MoeConfig moe = {.experts = 4, .top_k = 2, .expert_hidden = 16};
  for (const Over over : {Over::kSample, Over::kBatch}) {
    MoeConfig other = moe;
    other.balance_weight = 1;
    other.balance_over = over;
    EXPECT_EQ(text(other), "");
  }
  MoeConfig balanced = moe;
  balanced.balance_weight = 1;
  balanced.balance_over = Over::kMicrobatch;
  EXPECT_THAT(text(balanced),
              HasSubstr("by microbatch, of 3 samples in this plan"));
  MoeConfig important = moe;
  important.importance_weight = 1;
  important.importance_over = Over::kMicrobatch;
  EXPECT_THAT(text(important), HasSubstr("with another plan.microbatch_size"));
  important.importance_weight = 0;
  EXPECT_EQ(text(important), "");
}

}  // namespace
}  // namespace trireme
