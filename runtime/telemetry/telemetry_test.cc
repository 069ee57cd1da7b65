#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/core/file.h"
#include "runtime/telemetry/appending_file.h"
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
  EXPECT_EQ(Hex(TfRecord(event)),
            "1700000000000000e7cef81e" + Hex(event) + "b20c7b47");
  EXPECT_EQ(Hex(TfRecord("")), "000000000000000029039807d8ea82a2");
}

// The messages as TensorBoard's own classes serialize them, without the wall
// time in front.
TEST(TensorboardTest, TheFileHoldsWhatWasAdded) {
  const std::string folder = TempPath("tensorboard_events");
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  {
    auto writer = TensorboardWriter::Create(folder, 3).value();
    ASSERT_TRUE(writer->AddScalar("a", 3, 2.0).ok());
    ASSERT_TRUE(writer->AddImage("a", 3, 2, 1, 3, "png").ok());
    ASSERT_TRUE(writer->AddText("a", 3, "hi").ok());
    const std::vector<HistogramBin> bins = {{0, 1, 0.25}, {1, 2, 0.75}};
    ASSERT_TRUE(writer->AddHistogram("a", 3, bins).ok());
    const std::vector<float> positions = {0, 0, 0, 1, 0, 0, 0, 1, 0};
    const std::vector<int32_t> triangle = {0, 1, 2};
    ASSERT_TRUE(writer->AddMesh("a", 3, positions, triangle).ok());
  }
  const std::vector<std::string> names = ListDirectory(folder).value();
  ASSERT_EQ(names.size(), 1u);
  EXPECT_TRUE(names[0].starts_with("events.out.tfevents.")) << names[0];
  std::string rest = ReadFile(folder + "/" + names[0], 1 << 20).value();
  std::vector<std::string> events;
  while (!rest.empty()) {
    uint64_t size = 0;
    ASSERT_GE(rest.size(), sizeof(size));
    std::memcpy(&size, rest.data(), sizeof(size));
    ASSERT_LE(size, rest.size());
    const std::string data = rest.substr(12, size);
    ASSERT_EQ(rest.substr(0, size + 16), TfRecord(data));
    rest.erase(0, size + 16);
    events.push_back(Hex(data.substr(9)));
  }
  EXPECT_THAT(events,
              testing::ElementsAre(
                  "1000"
                  "1a0d627261696e2e4576656e743a32",  // "brain.Event:2"
                  "1003"
                  "3a020801",  // The session starts at step 3.
                  "1003"
                  "2a0a0a080a01611500000040",
                  "1003"
                  "2a120a100a0161220b0801100218032203706e67",
                  "1003"
                  "2a190a170a0161420808071200420268694a080a060a0474657874",
                  "1003"
                  "2a570a550a0161423e0802120812020802120208032230"
                  "0000000000000000000000000000f03f000000000000d03f"
                  "000000000000f03f0000000000000040000000000000e83f"
                  "4a100a0c0a0a686973746f6772616d732002",
                  "1003"
                  "2a5e0a5c0a08615f5645525445584236"
                  "0801120c120208011202080312020803"
                  "2224000000000000000000000000"
                  "0000803f0000000000000000"
                  "000000000000803f00000000"
                  "4a180a140a046d657368120c1201611801320301030338062002",
                  "1003"
                  "2a440a420a06615f46414345421e"
                  "0803120c120208011202080112020803"
                  "220c000000000100000002000000"
                  "4a180a140a046d657368120c1201611802320301010338062002"));
}

TEST(TensorboardTest, NamesAFolderThatIsNotThere) {
  const auto writer = TensorboardWriter::Create(TempPath("nowhere"));
  EXPECT_THAT(std::string(writer.status().message()),
              testing::HasSubstr(TempPath("nowhere")));
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
  // Whoever plots a run while it goes on sees its whole lines.
  EXPECT_EQ(ReadMetrics(path).value().size(), 5u);
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

// A run of tens of millions of steps goes on, and at once.
TEST(MetricsLogTest, AFileOfAnySizeIsResumed) {
  const std::string path = TempPath("large.jsonl");
  std::ofstream(path) << "{\"step\": 1}\n";
  const int64_t large = int64_t{5} << 30;  // A hole.
  std::filesystem::resize_file(path, large);
  std::ofstream(path, std::ios::app)
      << "\n{\"step\": 7}\n{\"step\": 8}\n{\"step\": 9}\n{\"st";
  ASSERT_TRUE(MetricsLog::Open(path, 8).ok());
  EXPECT_EQ(std::filesystem::file_size(path), large + 1 + 2 * 12);
  const absl::Status none = MetricsLog::Open(path, 5).status();
  EXPECT_THAT(std::string(none.message()),
              testing::HasSubstr("a line of more"));
  EXPECT_EQ(std::filesystem::file_size(path), large + 1 + 2 * 12);
  std::filesystem::remove(path);
}

// What a resume recalls of a long run is at its end.
TEST(MetricsLogTest, AFileOfAnySizeIsReadFromItsEnd) {
  const std::string path = TempPath("large_end.jsonl");
  std::ofstream(path) << "{\"step\": 1}\n";
  std::filesystem::resize_file(path, int64_t{5} << 30);  // A hole.
  std::ofstream(path, std::ios::app)
      << "\n{\"step\": 7}\nno entry\n{\"step\": 9}\n{\"st";
  std::vector<int64_t> steps;
  const auto take = [&](const nlohmann::json& entry) {
    steps.push_back(entry["step"].get<int64_t>());
    return steps.size() < 2;
  };
  ASSERT_TRUE(ReadMetricsBackwards(path, take).ok());
  EXPECT_EQ(steps, (std::vector<int64_t>{9, 7}));
  std::filesystem::remove(path);
  EXPECT_TRUE(absl::IsNotFound(ReadMetricsBackwards(path, take)));
}

TEST(MetricsLogTest, OnlyWhatIsNamedIsKept) {
  const std::string path = TempPath("named.jsonl");
  // Lines reach across the blocks in which the file is read.
  const std::string shares(700'000, 'x');
  std::ofstream(path) << fmt::format(
      "{{\"step\": 1, \"loss\": 2.5, \"shares\": \"{0}\"}}\n"
      "{{\"step\": 2, \"shares\": \"{0}\"}}\n"
      "{{\"step\": 3, \"loss\": 0.5, \"shares\": \"{0}\"}}\n",
      shares);
  const auto entries = ReadMetrics(path, {"loss"}).value();
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(entries[0].dump(), "{\"loss\":2.5,\"step\":1}");
  EXPECT_EQ(entries[1].dump(), "{\"step\":2}");
  EXPECT_EQ(entries[2].dump(), "{\"loss\":0.5,\"step\":3}");
  EXPECT_EQ(ReadMetrics(path).value()[2]["shares"], shares);
}

// Lines reach across the blocks in which the file is read.
TEST(MetricsLogTest, ResumeFindsAStepFarFromTheEnd) {
  const std::string path = TempPath("long_lines.jsonl");
  std::string content;
  size_t kept = 0;
  for (int step = 1; step <= 30; ++step) {
    content += fmt::format("{{\"step\": {}, \"text\": \"{}\"}}\n", step,
                           std::string(300'000 + 1'000 * step, 'x'));
    if (step == 4) kept = content.size();
  }
  std::ofstream(path) << content;
  ASSERT_TRUE(MetricsLog::Open(path, 4).ok());
  EXPECT_TRUE(ReadFile(path, 1 << 30).value() == content.substr(0, kept));
  ASSERT_TRUE(MetricsLog::Open(path, 0).ok());
  EXPECT_EQ(std::filesystem::file_size(path), 0u);
}

// A disk that is full for a while costs no line and no run.
TEST(AppendingFileTest, WhatCannotBeWrittenComesLater) {
  const std::string path = TempPath("appending");
  std::filesystem::remove(path);
  const auto file = AppendingFile::Open(path).value();
  rlimit before{}, small{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  small = before;
  small.rlim_cur = 5;
  // Told by an error instead.
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  file->Add("one\ntwo\n");
  const absl::Status full = file->Flush();
  file->Add("three\n");
  const absl::Status still = file->Flush();
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_TRUE(absl::IsUnavailable(full) && absl::IsUnavailable(still));
  EXPECT_TRUE(file->Flush().ok());
  EXPECT_EQ(ReadFile(path, 100).value(), "one\ntwo\nthree\n");
}

TEST(MetricsLogTest, AnErrorNamesTheLine) {
  const std::string path = TempPath("broken.jsonl");
  for (const char* line : {"{\"step\": 2, \"lo", "[2]", "{\"step\": \"2\"}",
                           "{\"step\": 1e300}", "\xff"}) {
    std::ofstream(path) << "{\"step\": 1}\n" << line << "\n";
    const auto entries = ReadMetrics(path);
    EXPECT_THAT(std::string(entries.status().message()),
                testing::HasSubstr(path + ":2: "))
        << line;
    EXPECT_TRUE(MetricsLog::Open(path, 5).ok());
    EXPECT_EQ(ReadMetrics(path).value().size(), 1u) << line;
  }
  EXPECT_TRUE(absl::IsNotFound(ReadMetrics(TempPath("none")).status()));
}

TEST(MetricsLogTest, WhatIsNoFileIsRefused) {
  const std::string folder = TempPath("metrics_folder");
  std::filesystem::create_directories(folder);
  EXPECT_FALSE(MetricsLog::Open(folder, 0).ok());
  EXPECT_FALSE(ReadMetrics(folder).ok());
}

TEST(MetricsLogTest, NumbersAndTextWithoutJsonFormDoNotEndTheRun) {
  const std::string path = TempPath("odd.jsonl");
  std::remove(path.c_str());
  auto log = MetricsLog::Open(path, 0).value();
  ASSERT_TRUE(log->Append({{"step", 1}, {"loss", NAN}, {"note", "\xff"}}).ok());
  const auto entries = ReadMetrics(path);
  ASSERT_TRUE(entries.ok()) << entries.status();
  EXPECT_TRUE((*entries)[0]["loss"].is_null());
}

std::string ProgressOutput(bool terminal, int columns = 80) {
  const std::string path = TempPath("progress.txt");
  std::FILE* out = std::fopen(path.c_str(), "w");
  ProgressReporter progress({.total = 20,
                             .line_every = 10,
                             .out = out,
                             .terminal = terminal,
                             .columns = columns});
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
  EXPECT_NE(text.find("==] step 20/20"), std::string::npos);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
}

// A line longer than the terminal would scroll at each redraw.
TEST(ProgressTest, NoLineIsWiderThanTheTerminal) {
  for (const int columns : {20, 55, 60, 80, 200}) {
    std::string text = ProgressOutput(true, columns);
    const size_t last = text.rfind('\r') + 1;
    const std::string line = text.substr(last, text.rfind('\033') - last);
    EXPECT_LT(line.size(), static_cast<size_t>(columns));
    EXPECT_EQ(line.starts_with("[====="), columns > 55) << line;
  }
}

TEST(ProgressTest, DurationsReadAsClocks) {
  EXPECT_EQ(DurationText(5), "0:05");
  EXPECT_EQ(DurationText(3723), "1:02:03");
}

}  // namespace
}  // namespace trireme
