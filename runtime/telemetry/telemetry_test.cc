#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>

#include "gtest/gtest.h"
#include "runtime/telemetry/metrics_log.h"
#include "runtime/telemetry/progress.h"
#include "runtime/telemetry/tensorboard.h"

namespace trireme {
namespace {

std::string Hex(const std::string& bytes) {
  std::string text;
  for (const unsigned char byte : bytes) {
    char digits[3];
    std::snprintf(digits, sizeof(digits), "%02x", byte);
    text += digits;
  }
  return text;
}

std::string TempPath(const std::string& name) {
  return testing::TempDir() + "/" + name;
}

// The bytes that the Python package tensorboard writes and reads.
TEST(TensorboardTest, WritesRecordsThatTensorboardReads) {
  const std::string event = ScalarEvent(1.0, 3, "a", 2.0f);
  EXPECT_EQ(Hex(event),
            "09000000000000f03f"  // wall_time = 1.0
            "1003"                // step = 3
            "2a0a0a080a0161"      // summary { value { tag = "a"
            "1500000040");        // simple_value = 2 } }
  EXPECT_EQ(Hex(TfRecord("")), "0000000000000000290398072d8ea282");
}

TEST(MetricsLogTest, ResumeDropsLaterAndBrokenLines) {
  const std::string path = TempPath("metrics.jsonl");
  std::remove(path.c_str());
  {
    auto log = MetricsLog::Open(path, 0);
    ASSERT_TRUE(log.ok());
    for (int step = 1; step <= 5; ++step) {
      ASSERT_TRUE((*log)->Append({{"step", step}, {"loss", 0.5}}).ok());
    }
  }
  std::ofstream(path, std::ios::app) << "{\"step\": 6, \"lo";
  EXPECT_FALSE(ReadMetrics(path).ok());
  {
    auto log = MetricsLog::Open(path, 3);
    ASSERT_TRUE(log.ok());
    ASSERT_TRUE((*log)->Append({{"step", 4}, {"loss", 0.25}}).ok());
  }
  const auto entries = ReadMetrics(path);
  ASSERT_TRUE(entries.ok());
  ASSERT_EQ(entries->size(), 4u);
  EXPECT_EQ((*entries)[3]["loss"], 0.25);
}

std::string ProgressOutput(bool terminal) {
  const std::string path = TempPath("progress.txt");
  std::FILE* out = std::fopen(path.c_str(), "w");
  ProgressReporter progress(
      {.total = 20, .line_every = 10, .out = out, .terminal = terminal});
  for (int step = 1; step <= 20; ++step) progress.Update(step, 1.5, 100);
  progress.Finish();
  std::fclose(out);
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

TEST(ProgressTest, PlainLinesWithoutATerminal) {
  const std::string text = ProgressOutput(false);
  EXPECT_EQ(text.find('\r'), std::string::npos);
  EXPECT_NE(text.find("step 1/20  loss 1.5000  100.0 samples/s"),
            std::string::npos);
  EXPECT_NE(text.find("step 10/20"), std::string::npos);
  EXPECT_EQ(text.find("step 11/20"), std::string::npos);
  EXPECT_NE(text.find("step 20/20"), std::string::npos);
}

TEST(ProgressTest, OneLineThatRedrawsItselfOnATerminal) {
  const std::string text = ProgressOutput(true);
  EXPECT_NE(text.find("\r["), std::string::npos);
  EXPECT_NE(text.find("[==============================] step 20/20"),
            std::string::npos);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
}

TEST(ProgressTest, DurationsReadAsClocks) {
  EXPECT_EQ(DurationText(5), "0:05");
  EXPECT_EQ(DurationText(3723), "1:02:03");
}

}  // namespace
}  // namespace trireme
