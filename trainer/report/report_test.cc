// A run's page shows what the run's files say, and nothing of them as markup.

#include "trainer/report/report.h"

#include <cmath>
#include <filesystem>
#include <string>

#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "trainer/report/charts.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

std::string RunWith(const std::string& name, const std::string& metrics) {
  const std::string root = testing::TempDir() + "/" + name;
  std::filesystem::remove_all(root);
  EXPECT_TRUE(MakeDirectories(root + "/samples").ok());
  EXPECT_TRUE(MakeDirectories(root + "/trace").ok());
  EXPECT_TRUE(WriteFileAtomically(root + "/metrics.jsonl", metrics).ok());
  return root;
}

std::string Step(int step, double seconds) {
  return fmt::format(
      "{{\"step\":{},\"loss\":{},\"lr\":1e-4,\"step_s\":{},\"compute_s\":{},"
      "\"exposed_s\":{{\"tp\":{},\"<b>\":0.1}},\"peak_bytes\":{{\"parameters\":"
      "1048576}},\"grad_norm\":null}}\n",
      step, 1.0 / step, seconds, seconds / 2, seconds / 4);
}

TEST(ReportTest, ShowsWhereTimeAndMemoryWentWithoutTheFirstStep) {
  const std::string run =
      RunWith("report", Step(1, 100) + Step(2, 1) + Step(3, 1));
  ASSERT_TRUE(
      WriteFileAtomically(run + "/job.textproto", "name: \"<script>\"\n").ok());
  ASSERT_TRUE(WriteFileAtomically(run + "/samples/step_3.png", "PNG").ok());
  ASSERT_TRUE(WriteFileAtomically(run + "/trace/rank_0.json",
                                  R"({"traceEvents":[{"ph":"M","name":7},
              {"ph":"X","name":"Forward mb=0","ts":0,"dur":2000},
              {"ph":"X","name":"Update","ts":2000,"dur":1000},
              {"ph":"X","name":"Forward mb=0","ts":5000,"dur":2000}]})")
                  .ok());
  const absl::StatusOr<std::string> page = ReportOfRun(RunFolder(run));
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_THAT(*page, AllOf(HasSubstr("<td>0.5 s</td>"),  // compute
                           HasSubstr("<td>0.25 s</td>"), HasSubstr("1 MiB"),
                           HasSubstr("data:image/png;base64,UE5H"),
                           HasSubstr("name: &quot;&lt;script&gt;&quot;"),
                           HasSubstr("&lt;b&gt;"), Not(HasSubstr("<script")),
                           HasSubstr("Update, 1 ms"), HasSubstr("rank_0")));
  // The traced step ends where the next one begins.
  EXPECT_THAT(*page, Not(HasSubstr("7 ms")));
}

// As shells complete its name.
TEST(ReportTest, AFolderHasItsNameWithASlashToo) {
  const std::string run = RunWith("slash", Step(1, 1));
  EXPECT_EQ(ReportOfRun(RunFolder(run + "/")).value(),
            ReportOfRun(RunFolder(run)).value());
}

TEST(ReportTest, OnlyReportsAreReplaced) {
  const std::string run = RunWith("replaced", Step(1, 1));
  const std::string path = run + "/page.html";
  EXPECT_TRUE(CheckReplacesReport(path).ok());
  ASSERT_TRUE(
      WriteFileAtomically(path, ReportOfRun(RunFolder(run)).value()).ok());
  EXPECT_TRUE(CheckReplacesReport(path).ok());
  for (const char* other : {"", "<!doctype html>\n<html>mine</html>"}) {
    ASSERT_TRUE(WriteFileAtomically(path, other).ok());
    EXPECT_TRUE(absl::IsFailedPrecondition(CheckReplacesReport(path)));
  }
}

TEST(ReportTest, WhoKeepsOthersWaitingIsListedOnce) {
  const auto looked = [](int step, const std::string& found) {
    return fmt::format("{{\"step\":{},\"stragglers\":[{}]}}\n", step, found);
  };
  const std::string run = RunWith(
      "stragglers",
      looked(100, R"("the link of rank 1 (b) and rank 2 (c) moves 3 MB/s")") +
          looked(200, "") +
          looked(300,
                 R"("the link of rank 1 (b) and rank 2 (c) moves 2 MB/s", )"
                 R"("rank 1 (b) computes 2 s a step")"));
  EXPECT_THAT(ReportOfRun(RunFolder(run)).value(),
              AllOf(HasSubstr("(c) moves 2 MB/s: 2 times, after step 100 to "
                              "300"),
                    HasSubstr("rank 1 (b) computes 2 s a step: 1 times, after "
                              "step 300 to 300")));
}

TEST(ReportTest, HeldOutSamplesLossesAreDrawnWhereTheyWereMeasured) {
  const auto page = [](const std::string& name, const std::string& more) {
    const std::string run =
        RunWith(name, Step(1, 1) + "{\"step\":2,\"loss\":0.5" + more + "}\n");
    return ReportOfRun(RunFolder(run)).value();
  };
  EXPECT_THAT(page("measured", ",\"validation_loss\":0.6"),
              HasSubstr("held out"));
  EXPECT_THAT(page("not_measured", ""), Not(HasSubstr("held out")));
}

// One step that went wrong does not take the mean of all that follow.
TEST(ReportTest, TheMeanGoesOnBehindALossThatIsNoNumber) {
  const auto lines = [](const std::string& name, const std::string& second) {
    std::string steps = Step(1, 1) + "{\"step\":2,\"loss\":" + second + "}\n";
    for (int step = 3; step <= 150; ++step) steps += Step(step, 1);
    const std::string run = RunWith(name, steps);
    const std::string page = ReportOfRun(RunFolder(run)).value();
    int found = 0;
    for (size_t at = 0; (at = page.find("<polyline", at)) != page.npos; ++at) {
      ++found;
    }
    return found;
  };
  EXPECT_EQ(lines("bad_loss", "null"), lines("good_loss", "0.5"));
}

// A mean over one step would cover the loss.
TEST(ReportTest, AShortRunHasNoMean) {
  const auto page = [](const std::string& name, int count) {
    std::string steps;
    for (int step = 1; step <= count; ++step) steps += Step(step, 1);
    return ReportOfRun(RunFolder(RunWith(name, steps))).value();
  };
  EXPECT_THAT(page("short", 20), Not(HasSubstr("</i>mean")));
  EXPECT_THAT(page("long", 100), HasSubstr("</i>mean"));
}

// Nobody reads 0.007727 s, or a row of 0.0 %.
TEST(ReportTest, ShortTimesAreInMilliseconds) {
  const std::string page =
      ReportOfRun(
          RunFolder(RunWith("milliseconds",
                            "{\"step\":1,\"loss\":1,\"step_s\":0.009,"
                            "\"compute_s\":0.008,\"exposed_s\":{\"tp\":0.001,"
                            "\"pp\":2e-7}}\n")))
          .value();
  EXPECT_THAT(page,
              AllOf(HasSubstr("<td>8 ms</td>"), HasSubstr("9 ms, "),
                    HasSubstr("in 9 ms of training"), Not(HasSubstr("0.0 %"))));
}

TEST(ReportTest, TheNewestPicturesOfEachKindAreShown) {
  const std::string run = RunWith("kinds", Step(1, 1));
  for (const char* name : {"routing_1", "routing_2", "step_1", "step_2",
                           "step_3", "step_4", "step_5"}) {
    ASSERT_TRUE(
        WriteFileAtomically(fmt::format("{}/samples/{}.png", run, name), "PNG")
            .ok());
  }
  EXPECT_THAT(ReportOfRun(RunFolder(run)).value(),
              AllOf(HasSubstr("routing_1.png"), HasSubstr("routing_2.png"),
                    HasSubstr("step_5.png"), HasSubstr("step_2.png"),
                    Not(HasSubstr("step_1.png"))));
}

TEST(ReportTest, FilesThatAreBrokenAreLeftOut) {
  const std::string run = RunWith("broken", Step(1, 1));
  ASSERT_TRUE(
      WriteFileAtomically(run + "/trace/rank_0.json", "{\"traceEvents\":[7]}")
          .ok());
  EXPECT_TRUE(ReportOfRun(RunFolder(run)).ok());
  EXPECT_THAT(MessageOf(ReportOfRun(RunFolder(run + "/none")).status()),
              HasSubstr("metrics.jsonl"));
}

TEST(ChartsTest, ALongCurveKeepsItsHighestAndLowestPoints) {
  Curve curve{.name = "a"};
  for (int i = 0; i < 100'000; ++i) {
    curve.points.emplace_back(i, i == 54'321 ? 100 : std::sin(i));
  }
  const std::string chart = CurveChart("t", {curve});
  // At the top of the chart.
  EXPECT_THAT(chart, HasSubstr(",16.0 "));
  EXPECT_LT(chart.size(), 40'000u);
}

// A reader finds 0.5 between 0.2 and 1, not 0.43 between 0.31 and 0.6.
TEST(ChartsTest, ALogarithmicAxisHasRoundNumbers) {
  const auto labels = [](double low, double high) {
    const Curve curve{.name = "a", .points = {{1, low}, {2, high}}};
    std::string labels;
    const std::string chart = CurveChart("t", {curve}, /*log=*/true);
    size_t at = 0;
    while ((at = chart.find("text-anchor=\"end\">", at)) != chart.npos) {
      at = chart.find('>', at) + 1;
      // Those of the x axis come behind.
      if (chart.substr(0, at).find("polyline") != chart.npos) break;
      labels += chart.substr(at, chart.find('<', at) - at) + " ";
    }
    return labels;
  };
  EXPECT_THAT(labels(0.15, 1.2), StartsWith("0.2 0.5 1 "));
  EXPECT_THAT(labels(0.02, 30), StartsWith("0.1 1 10 "));
  EXPECT_THAT(labels(0.308, 0.341), StartsWith("0.31 0.315 0.32 "));
}

TEST(ChartsTest, WhatIsNoNumberIsNotDrawn) {
  const Curve curve{.name = "a", .points = {{1, NAN}, {2, INFINITY}}};
  EXPECT_THAT(CurveChart("t", {curve}), HasSubstr("nothing to draw"));
  EXPECT_THAT(ShareChart("t", "s", {{"a", 0.0}}), HasSubstr("nothing to draw"));
  EXPECT_THAT(LaneChart("t", {}), HasSubstr("nothing to draw"));
}

}  // namespace
}  // namespace trireme
