#include "scheduler/explain/tables.h"

#include <algorithm>

#include "gtest/gtest.h"
#include "scheduler/explain/charts.h"
#include "scheduler/pieces/transformer_pieces_testing.h"

namespace trireme {
namespace {

int64_t Count(const std::string& text, const std::string& part) {
  int64_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos;
       at = text.find(part, at + part.size())) {
    ++count;
  }
  return count;
}

class ReportTest : public testing::Test {
 protected:
  void SetUp() override {
    input_.model.layers = 8;
    input_.model.hidden = 2048;
    input_.model.mlp_hidden = 8192;
    input_.model.heads = 16;
    input_.model.tokens = 1024;
    input_.model.pieces = PiecesByFormulas();
    const absl::StatusOr<Cluster> cluster = DescribeCluster(
        {.nodes = 2, .devices_per_node = 2, .network = "ethernet-25"});
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    input_.cluster = *cluster;
    input_.global_batch = 16;
    input_.options.space.schedules = {Plan::ZB_H1};
    absl::StatusOr<PlanReport> report = MakePlan(input_);
    ASSERT_TRUE(report.ok()) << report.status();
    report_ = *std::move(report);
  }

  PlannerInput input_;
  PlanReport report_;
};

TEST_F(ReportTest, TablesHaveALineForEachPlanAndRank) {
  const std::string plans = PlanTable(report_);
  EXPECT_EQ(Count(plans, "\n"), 1 + static_cast<int64_t>(report_.best.size()));
  EXPECT_NE(plans.find(ToText(report_.best.front().candidate)),
            std::string::npos);
  const RankedPlan& plan = report_.best.front();
  EXPECT_EQ(Count(MemoryTable(plan), "\n"),
            1 + static_cast<int64_t>(plan.estimate.peak.size()));
}

// Nobody can act on candidates that vanish without a word.
TEST_F(ReportTest, TheSummaryCountsEveryCandidate) {
  const std::string summary = VerdictSummary(input_, report_);
  for (const VerdictCode code :
       {VerdictCode::kChosen, VerdictCode::kDominated,
        VerdictCode::kTpCrossesNode, VerdictCode::kPending}) {
    const int64_t count = std::count_if(
        report_.candidates.begin(), report_.candidates.end(),
        [&](const Candidate& candidate) { return candidate.verdict == code; });
    const std::string line =
        std::to_string(count) + " " + std::string(VerdictCodeName(code)) + " ";
    EXPECT_EQ(summary.find(line) != std::string::npos, count > 0)
        << line << "\n"
        << summary;
  }
}

TEST_F(ReportTest, ATimelineShowsEveryComputation) {
  PlannerInput input = input_;
  Candidate candidate;
  candidate.tp = 1;
  candidate.pp = 4;
  candidate.schedule = Plan::ZB_H1;
  const absl::StatusOr<ClusterModel> cluster = ResolveCluster(input.cluster);
  ASSERT_TRUE(cluster.ok());
  const absl::StatusOr<Plan> plan =
      PlanOfCandidate(input.model, *cluster, 16, candidate);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const absl::StatusOr<Estimate> estimate =
      EstimatePlan(input.model, *cluster, *plan);
  ASSERT_TRUE(estimate.ok()) << estimate.status();
  const std::string svg =
      TimelineSvg(estimate->program, estimate->simulation, "a < b");
  EXPECT_EQ(Count(svg, "<title>Forward "), 4 * 16);
  EXPECT_EQ(Count(svg, "<title>BackwardInput "), 4 * 16);
  EXPECT_EQ(Count(svg, "<title>BackwardWeight "), 4 * 16);
  EXPECT_EQ(Count(svg, ">rank 3</text>"), 1);
  EXPECT_NE(svg.find("a &lt; b"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(Count(TimelineSvg(estimate->program, estimate->simulation, "", 2),
                  ">rank "),
            2);
  const std::string memory = MemorySvg(estimate->peak, estimate->limit, "");
  EXPECT_EQ(Count(memory, "<title>optimizer "), 4);
}

}  // namespace
}  // namespace trireme
