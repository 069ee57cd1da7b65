#include "trainer/config/written_file.h"

#include <gtest/gtest.h>

#include <string>

#include "google/protobuf/util/message_differencer.h"
#include "runtime/core/file.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/config/textproto.h"

namespace trireme {
namespace {

std::string PathOf(const std::string& name) {
  return testing::TempDir() + "/" + name;
}

Plan SmallPlan() {
  Plan plan;
  plan.mutable_grid()->set_tp(2);
  plan.set_recompute(Plan::FULL);
  return plan;
}

TEST(WrittenFile, OnlyWhatTheSameCommandWroteIsReplaced) {
  const std::string path = PathOf("plan.textproto");
  EXPECT_TRUE(CheckReplaceable(path, "plan").ok());
  ASSERT_TRUE(WriteMarkedFile(SmallPlan(), "plan", path).ok());
  EXPECT_TRUE(CheckReplaceable(path, "plan").ok());
  EXPECT_FALSE(CheckReplaceable(path, "cluster describe").ok());
  EXPECT_FALSE(CheckReplaceable(path, "").ok());

  Plan read;
  ASSERT_TRUE(ParseTextProtoFile(path, &read).ok());
  EXPECT_TRUE(
      google::protobuf::util::MessageDifferencer::Equals(read, SmallPlan()));
}

TEST(WrittenFile, WhatAPersonWroteOrChangedIsKept) {
  const std::string path = PathOf("edited.textproto");
  ASSERT_TRUE(WriteFileAtomically(path, "grid { tp: 2 }  # mine\n").ok());
  const absl::Status refused = CheckReplaceable(path, "plan");
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(refused.message().find(path), std::string::npos) << refused;

  ASSERT_TRUE(WriteMarkedFile(SmallPlan(), "plan", path).ok());
  const auto text = ReadFile(path, 1 << 20);
  ASSERT_TRUE(text.ok());
  ASSERT_TRUE(WriteFileAtomically(path, *text + "microbatches: 4\n").ok());
  EXPECT_FALSE(CheckReplaceable(path, "plan").ok());
}

TEST(WrittenFile, AFolderThatIsNotThereIsFoundBeforehand) {
  EXPECT_FALSE(CheckReplaceable(PathOf("none/plan.textproto"), "plan").ok());
}

TEST(WrittenFile, JsonIsReadAsItWasWritten) {
  const std::string path = PathOf("plan.json");
  ASSERT_TRUE(WriteMarkedFile(SmallPlan(), "plan", path).ok());
  Plan read;
  const auto parsed = ParseTextProtoFile(path, &read);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_TRUE(
      google::protobuf::util::MessageDifferencer::Equals(read, SmallPlan()));
  EXPECT_FALSE(CheckReplaceable(path, "plan").ok());
}

}  // namespace
}  // namespace trireme
