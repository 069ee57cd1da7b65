#include "scheduler/simulator/trace.h"

#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace trireme {
namespace {

const std::vector<TraceEvent> kEvents = {
    {"Forward mb=0", "compute", 0, "compute", 0, 1500, {{"instruction", "0"}}},
    {"quote \" and \xff", "communication", 1, "to 0", 2000001, 1, {}},
    {"Backward mb=0", "compute", 0, "compute", 1500, 3000, {}},
};

TEST(Trace, IsJsonWithOneTrackForEachRankAndResource) {
  std::ostringstream out;
  WriteChromeTrace(kEvents, out);
  const nlohmann::json trace = nlohmann::json::parse(out.str());
  std::vector<nlohmann::json> spans;
  std::vector<std::string> names;
  for (const nlohmann::json& event : trace["traceEvents"]) {
    if (event["ph"] == "X") {
      spans.push_back(event);
    } else if (event["name"] != "process_sort_index") {
      names.push_back(event["args"]["name"]);
    }
  }
  EXPECT_EQ(names,
            (std::vector<std::string>{"rank 0", "compute", "rank 1", "to 0"}));
  ASSERT_EQ(spans.size(), 3u);
  EXPECT_EQ(spans[0]["dur"], 1.5);  // microseconds
  EXPECT_EQ(spans[0]["args"]["instruction"], "0");
  EXPECT_EQ(spans[1]["ts"], 2000.001);
  EXPECT_EQ(spans[1]["pid"], 1);
  EXPECT_EQ(spans[2]["tid"], spans[0]["tid"]);
}

// Whoever looks at it compares the two by eye.
TEST(Trace, WhatWasMeasuredLiesAboveWhatWasPredictedOfEachRank) {
  Timelines timelines = {.measured = kEvents, .predicted = kEvents};
  std::swap(timelines.measured[0], timelines.measured[1]);
  std::ostringstream out;
  WriteChromeTrace(timelines, out);
  std::map<int, std::string> names;
  std::map<std::string, std::set<std::string>> tracks;
  int spans = 0;
  const nlohmann::json trace = nlohmann::json::parse(out.str());
  for (const nlohmann::json& event : trace["traceEvents"]) {
    spans += event["ph"] == "X" ? 1 : 0;
    if (event["name"] == "process_sort_index") {
      EXPECT_EQ(event["args"]["sort_index"], event["pid"]);
    } else if (event["name"] == "process_name") {
      names[event["pid"]] = event["args"]["name"];
    } else if (event["name"] == "thread_name") {
      tracks[names[event["pid"]]].insert(event["args"]["name"]);
    }
  }
  EXPECT_EQ(spans, 6);
  EXPECT_EQ(names, (std::map<int, std::string>{{0, "rank 0, measured"},
                                               {1, "rank 0, predicted"},
                                               {2, "rank 1, measured"},
                                               {3, "rank 1, predicted"}}));
  EXPECT_EQ(tracks["rank 0, measured"], tracks["rank 0, predicted"]);
  EXPECT_EQ(tracks["rank 1, measured"], tracks["rank 1, predicted"]);
}

TEST(Trace, TheFileAppearsWholeOrNotAtAll) {
  const std::string folder = testing::TempDir();
  const std::string path = folder + "/trace_test.json";
  ASSERT_TRUE(WriteChromeTraceFile(kEvents, path).ok());
  std::ifstream file(path);
  EXPECT_EQ(nlohmann::json::parse(file)["traceEvents"].size(), 9u);
  const absl::Status status =
      WriteChromeTraceFile(kEvents, folder + "/no_such_folder/trace.json");
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.ToString().find("no_such_folder"), std::string::npos);
}

}  // namespace
}  // namespace trireme
