#include "scheduler/search/search.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "scheduler/cluster/collectives.h"
#include "scheduler/costs/estimate.h"
#include "scheduler/explain/sensitivities.h"
#include "scheduler/explain/verdicts.h"
#include "scheduler/pieces/measured_times.h"
#include "scheduler/pieces/transformer_pieces_testing.h"
#include "scheduler/plan/plan.h"
#include "scheduler/search/candidate_plan.h"

namespace trireme {
namespace {

ModelShape Model() {
  ModelShape model;
  model.name = "DiT";
  model.layers = 12;
  model.hidden = 2048;
  model.mlp_hidden = 8192;
  model.heads = 16;
  model.tokens = 1024;
  model.pieces = PiecesByFormulas({.modulation_parameters = 6 * 2048 * 2048});
  return model;
}

PlannerInput Input(const ClusterPreset& preset, int64_t global_batch) {
  PlannerInput input;
  input.model = Model();
  const absl::StatusOr<Cluster> cluster = DescribeCluster(preset);
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  input.cluster = *cluster;
  input.global_batch = global_batch;
  return input;
}

PlanReport Planned(const PlannerInput& input) {
  absl::StatusOr<PlanReport> report = MakePlan(input);
  EXPECT_TRUE(report.ok()) << report.status();
  return report.ok() ? *std::move(report) : PlanReport();
}

// Pruning must not lose the best plan: on eight devices it is compared with
// everything that fits.
TEST(Search, IsWithinOnePercentOfExhaustiveSearch) {
  for (const auto& [network, nodes] :
       {std::pair("hdr", 2), std::pair("ethernet-100", 4)}) {
    PlannerInput input = Input(
        {.nodes = nodes, .devices_per_node = 8 / nodes, .network = network},
        16);
    input.options.space.max_microbatch_size = 2;
    input.options.exact.max_devices = 0;
    const PlanReport pruned = Planned(input);
    ASSERT_FALSE(pruned.best.empty());
    const auto cluster = ResolveCluster(input.cluster);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    int64_t all = 0;
    double least = std::numeric_limits<double>::infinity();
    std::string fastest;
    for (const Candidate& candidate : EnumerateCandidates(
             input.model, *cluster, input.global_batch, input.options.space)) {
      if (candidate.verdict != VerdictCode::kPending) continue;
      const auto plan =
          PlanOfCandidate(input.model, *cluster, input.global_batch, candidate);
      ASSERT_TRUE(plan.ok()) << plan.status();
      const auto estimate = EstimatePlan(input.model, *cluster, *plan);
      ASSERT_TRUE(estimate.ok()) << estimate.status();
      ++all;
      if (estimate->step_s >= least || !Fits(*estimate)) continue;
      least = estimate->step_s;
      fastest = ToText(candidate);
    }
    EXPECT_LT(pruned.simulated, all);
    EXPECT_LE(pruned.best.front().estimate.step_s, 1.01 * least)
        << network << " " << nodes << " "
        << ToText(pruned.best.front().candidate) << " against " << fastest;
  }
}

TEST(Search, EveryCandidateHasOneVerdictAndOneIsChosen) {
  PlannerInput input = Input({.nodes = 3, .devices_per_node = 4}, 12);
  input.model.heads = 6;
  input.options.space.max_microbatch_size = 2;
  input.options.max_placing_work /= 20;
  const PlanReport report = Planned(input);
  int chosen = 0;
  std::vector<bool> seen(16, false);
  for (const Candidate& candidate : report.candidates) {
    EXPECT_NE(candidate.verdict, VerdictCode::kPending) << ToText(candidate);
    chosen += candidate.verdict == VerdictCode::kChosen ? 1 : 0;
    seen[static_cast<size_t>(candidate.verdict)] = true;
  }
  EXPECT_EQ(chosen, 1);
  for (const VerdictCode code :
       {VerdictCode::kDominated, VerdictCode::kIndivisible,
        VerdictCode::kTpCrossesNode, VerdictCode::kTooFewBlocks}) {
    EXPECT_TRUE(seen[static_cast<size_t>(code)]) << VerdictCodeName(code);
  }
  EXPECT_EQ(report.best.front().candidate.verdict, VerdictCode::kChosen);
}

// The plan is what the runtime will read: complete, valid, with predictions.
TEST(Search, ThePlanIsValidAndPredictsEveryRank) {
  PlannerInput input = Input({.nodes = 2}, 32);
  input.options.space.max_microbatch_size = 2;
  input.options.max_placing_work /= 20;
  const PlanReport report = Planned(input);
  double last = 0;
  for (const RankedPlan& ranked : report.best) {
    const absl::Status valid = ValidatePlan(
        ranked.plan,
        {.world_size = 16, .global_batch = 32, .num_blocks = 12, .heads = 16});
    EXPECT_TRUE(valid.ok()) << valid;
    EXPECT_EQ(ranked.plan.predicted().peak_bytes_size(), 16);
    EXPECT_GE(ranked.plan.predicted().step_s(), last);
    last = ranked.plan.predicted().step_s();
    EXPECT_LE(WorstOverflow(ranked.estimate).bytes, 0);
  }
}

TEST(Search, IsDeterministic) {
  const PlannerInput input =
      Input({.nodes = 2, .devices_per_node = 2, .network = "ethernet-25"}, 8);
  const PlanReport a = Planned(input);
  const PlanReport b = Planned(input);
  EXPECT_EQ(a.best.front().plan.SerializeAsString(),
            b.best.front().plan.SerializeAsString());
}

// On one device every microbatch size computes the same in the same time, but
// for rounding, which must not choose the smallest kernels.
TEST(Search, OfStepsThatTieTheLargestMicrobatchIsChosen) {
  PlannerInput input = Input({.nodes = 1, .devices_per_node = 1}, 24);
  const PlanReport report = Planned(input);
  ASSERT_FALSE(report.best.empty());
  EXPECT_EQ(report.best.front().candidate.microbatch_size, 24);
  // Of those that fit.
  int64_t peak = 0;
  for (const MemoryBytes& rank : report.best.front().estimate.peak) {
    peak = std::max(peak, rank.total());
  }
  Cluster::Device& device = *input.cluster.mutable_devices(0);
  device.set_memory_bytes(device.reserved_bytes() + peak - 1);
  const PlanReport tight = Planned(input);
  ASSERT_FALSE(tight.best.empty());
  EXPECT_EQ(tight.best.front().candidate.microbatch_size, 12);
}

// What a profile measured decides how many blocks each stage has: else the
// stage with a slow embedding holds all others up.
TEST(Search, MeasuredTimesMoveTheCut) {
  PlannerInput input = Input({.nodes = 1, .devices_per_node = 4}, 16);
  input.model.dtype = "bf16";
  const Candidate candidate = {.tp = 1, .cp = 1, .dp = 1, .pp = 4};
  auto cut = [&] {
    std::vector<uint32_t> blocks;
    const auto cluster = ResolveCluster(input.cluster);
    EXPECT_TRUE(cluster.ok()) << cluster.status();
    UseMeasuredTimes(*cluster, input.model);
    const auto plan =
        PlanOfCandidate(input.model, *cluster, input.global_batch, candidate);
    EXPECT_TRUE(plan.ok()) << plan.status();
    for (const auto& stage : plan->stages()) blocks.push_back(stage.blocks());
    return blocks;
  };
  EXPECT_EQ(cut(), (std::vector<uint32_t>{3, 3, 3, 3}));

  Cluster::ModelTimes& times = *input.cluster.add_model_times();
  times = SizesOf(input.model);
  auto add = [&](Cluster::PieceTime::Piece piece, double forward_s) {
    Cluster::PieceTime& time = *times.add_pieces();
    time.set_piece(piece);
    time.set_device(input.cluster.devices(0).name());
    time.set_tp(1);
    time.set_cp(1);
    time.set_microbatch_size(1);
    time.set_forward_s(forward_s);
    time.set_backward_s(2 * forward_s);
    time.set_backward_weight_s(forward_s);
  };
  add(Cluster::PieceTime::BLOCK, 1e-3);
  add(Cluster::PieceTime::EMBEDDING, 2e-3);
  add(Cluster::PieceTime::HEAD, 1e-4);
  // 2 + 1.5 blocks' time would be best.
  EXPECT_EQ(cut(), (std::vector<uint32_t>{1, 4, 4, 3}));
  times.mutable_pieces(0)->set_forward_s(1e-2);
  times.mutable_pieces(0)->set_backward_s(2e-2);
  EXPECT_EQ(cut(), (std::vector<uint32_t>{3, 3, 3, 3}));
  // Those of another model are not taken.
  times.set_hidden(times.hidden() / 2);
  EXPECT_EQ(cut(), (std::vector<uint32_t>{3, 3, 3, 3}));
  EXPECT_TRUE(input.model.measured.empty());
}

// A job in fp64 can be planned like any other: slower, and with more memory.
TEST(Search, PlansFp64) {
  PlannerInput input = Input({.nodes = 1, .devices_per_node = 4}, 16);
  const PlanReport half = Planned(input);
  input.model.element_bytes = 8;
  input.model.gradient_bytes = 8;
  input.model.optimizer_bytes = 16;
  const PlanReport report = Planned(input);
  ASSERT_FALSE(report.best.empty() || half.best.empty());
  EXPECT_GT(report.best[0].estimate.step_s, 10 * half.best[0].estimate.step_s);
  EXPECT_GT(report.best[0].estimate.mfu, 0.1);
  EXPECT_LT(report.best[0].estimate.mfu, 1);
}

TEST(Search, MemoryDecidesAndSaysSo) {
  PlannerInput input = Input({.devices_per_node = 4}, 16);
  const PlanReport roomy = Planned(input);
  // A byte less than the best plan's peak.
  int64_t peak = 0;
  for (const MemoryBytes& rank : roomy.best.front().estimate.peak) {
    peak = std::max(peak, rank.total());
  }
  Cluster::Device& device = *input.cluster.mutable_devices(0);
  device.set_memory_bytes(device.reserved_bytes() + peak - 1);
  const PlanReport tight = Planned(input);
  EXPECT_FALSE(IsFaster(tight.best.front().estimate.step_s,
                        roomy.best.front().estimate.step_s));
  for (size_t pp = 0; pp < tight.best.front().estimate.peak.size(); ++pp) {
    EXPECT_LT(tight.best.front().estimate.peak[pp].total(), peak);
  }
  const absl::StatusOr<std::string> why = Why(
      input, tight, {.tp = 1, .cp = 1, .pp = 1, .sharding = Plan::REPLICATED});
  ASSERT_TRUE(why.ok()) << why.status();
  EXPECT_NE(why->find("OOM("), std::string::npos) << *why;
  EXPECT_NE(why->find("largest: optimizer"), std::string::npos) << *why;
  EXPECT_NE(why->find("fits with sharding"), std::string::npos) << *why;

  device.set_memory_bytes(device.reserved_bytes() + (uint64_t{1} << 30));
  input.options.space.offload = OffloadSearch::kNever;
  const absl::StatusOr<PlanReport> none = MakePlan(input);
  EXPECT_EQ(none.status().code(), absl::StatusCode::kResourceExhausted)
      << none.status();
  // Rank, instruction, the largest items first, and by how much.
  const std::string message(none.status().message());
  for (const char* part : {"pipeline rank 0 instruction", "'Forward mb=",
                           "found a peak of", "(optimizer ", " too many"}) {
    EXPECT_NE(message.find(part), std::string::npos) << part << ": " << message;
  }
}

// Nothing of what subsets of the devices are asked for is worth a search where
// no plan can be faster.
TEST(Search, NothingIsFoundThatDoesNotBeatTheGivenStep) {
  PlannerInput input = Input({.nodes = 1, .devices_per_node = 4}, 16);
  const double fastest = Planned(input).best.front().estimate.step_s;
  input.options.exact.max_devices = 0;
  input.options.step_to_beat_s = fastest / 2;
  EXPECT_EQ(MakePlan(input).status().code(), absl::StatusCode::kNotFound);
  input.options.step_to_beat_s = 2 * fastest;
  EXPECT_LE(Planned(input).best.front().estimate.step_s, 1.01 * fastest);
}

TEST(Search, WhyNamesTheReason) {
  const PlannerInput input = Input({.nodes = 2, .devices_per_node = 4}, 16);
  const PlanReport report = Planned(input);
  auto why = [&](const WhyQuery& query) {
    const absl::StatusOr<std::string> text = Why(input, report, query);
    EXPECT_TRUE(text.ok()) << text.status();
    return text.ok() ? *text : "";
  };
  EXPECT_NE(why({.tp = 8}).find("TP_CROSSES_NODE"), std::string::npos);
  EXPECT_NE(why({.recompute = Plan::FULL}).find("DOMINATED("),
            std::string::npos);
  EXPECT_NE(why({.tp = 1, .cp = 1, .pp = 1, .dp = 8, .microbatch_size = 4})
                .find("UNSUPPORTED(plan.microbatch_size: "),
            std::string::npos);
  // Nobody considers these; whoever asks is told nevertheless.
  EXPECT_NE(why({.tp = 3}).find("UNSUPPORTED(plan.grid"), std::string::npos);
  EXPECT_NE(why({.ep = 2}).find("UNSUPPORTED(plan.grid.ep: found 2"),
            std::string::npos);
  const std::string wide =
      why({.pp = 1, .dp = 8, .microbatch_size = 2, .sequence_parallel = true});
  EXPECT_NE(wide.find("evaluated: "), std::string::npos) << wide;
  // How the chosen plan moves experts' rows says nothing about others.
  PlanReport moving = report;
  moving.best.front().candidate.row_chunks = 2;
  moving.best.front().candidate.row_copies = 2;
  moving.best.front().candidate.node_ranks = 2;
  const absl::StatusOr<std::string> same =
      Why(input, moving,
          {.pp = 1, .dp = 8, .microbatch_size = 2, .sequence_parallel = true});
  ASSERT_TRUE(same.ok()) << same.status();
  EXPECT_EQ(same->find("UNSUPPORTED"), wide.find("UNSUPPORTED")) << *same;
  // What the plan's own rules refuse is told in their words.
  const std::string unsupported = VerdictText(
      input, report, {.tp = 3, .verdict = VerdictCode::kUnsupported});
  EXPECT_EQ(unsupported.find("UNSUPPORTED(plan.grid: "), 0u) << unsupported;
}

TEST(Search, VerdictsAreOneLineForEachCandidate) {
  const PlannerInput input = Input({.nodes = 2, .devices_per_node = 2}, 8);
  PlanReport report = Planned(input);
  // Whoever reads the table finds the seconds of a plan beside what it does.
  ASSERT_FALSE(report.best.empty());
  report.best.front().candidate.offload = true;
  report.best.front().candidate.resident_units = 3;
  report.best.front().candidate.device_blocks = 17;
  const std::string csv = VerdictsCsv(report);
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'),
            static_cast<int64_t>(report.candidates.size()) + 1);
  EXPECT_NE(csv.find(",CHOSEN,"), std::string::npos);
  EXPECT_EQ(csv.find("PENDING"), std::string::npos);
  const auto columns = [](const std::string& line) {
    return std::count(line.begin(), line.end(), ',');
  };
  EXPECT_EQ(columns(csv.substr(0, csv.find('\n'))), 27);
  EXPECT_EQ(columns(csv.substr(csv.rfind('\n', csv.size() - 2))), 27);
  const size_t chosen = csv.find(",CHOSEN,");
  const size_t line = csv.rfind('\n', chosen) + 1;
  const std::string until_verdict = csv.substr(line, chosen - line);
  EXPECT_NE(until_verdict.find(",3,17,"), std::string::npos) << until_verdict;
}

// A node that is half as fast again gets fewer blocks wherever it is, and the
// step shrinks.
TEST(Search, StagesOnASlowNodeAreSmaller) {
  PlannerInput input =
      Input({.nodes = 4, .devices_per_node = 1, .network = "hdr"}, 16);
  input.model.layers = 24;
  input.options.space.schedules = {Plan::ONE_F_ONE_B};
  input.options.space.max_tp = input.options.space.max_cp = 1;
  Cluster::Node& node = *input.cluster.mutable_nodes(2);
  node.set_slowdown(1.5);
  const absl::StatusOr<ClusterModel> cluster = ResolveCluster(input.cluster);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  const Candidate pipeline = {.pp = 4};
  const absl::StatusOr<Plan> cut =
      PlanOfCandidate(input.model, *cluster, input.global_batch, pipeline);
  ASSERT_TRUE(cut.ok()) << cut.status();
  Plan even = *cut;
  for (Plan::Stage& stage : *even.mutable_stages()) stage.set_blocks(6);
  EXPECT_LT(cut->stages(2).blocks(), 6u);
  const auto estimate = EstimatePlan(input.model, *cluster, *cut);
  const auto estimate_even = EstimatePlan(input.model, *cluster, even);
  ASSERT_TRUE(estimate.ok() && estimate_even.ok());
  EXPECT_LT(estimate->step_s, 0.85 * estimate_even->step_s);
  // The search does so too, and wherever it puts the node.
  const PlanReport report = Planned(input);
  for (const RankedPlan& ranked : report.best) {
    if (ranked.plan.grid().pp() != 4) continue;
    for (int pp = 0; pp < 4; ++pp) {
      if (ranked.plan.placement(pp) == 2) {
        EXPECT_LT(ranked.plan.stages(pp).blocks(), 6u);
      }
    }
  }
  EXPECT_EQ(report.best.front().plan.grid().pp(), 4u);
  EXPECT_LE(report.best.front().estimate.step_s, estimate->step_s * (1 + 1e-9));
}

// The only slow link is the one that the report points at.
TEST(Search, SensitivityNamesTheBottleneck) {
  PlannerInput input =
      Input({.nodes = 3, .devices_per_node = 1, .network = "ethernet-25"}, 12);
  Plan plan;
  plan.mutable_grid()->set_pp(3);
  plan.set_microbatches(12);
  const absl::StatusOr<Plan> resolved = ResolvePlan(
      plan,
      {.world_size = 3, .global_batch = 12, .num_blocks = 12, .heads = 16});
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  Cluster::NodeLink& slow = *input.cluster.add_links();
  slow.set_from(1);
  slow.set_to(2);
  *slow.mutable_link() = input.cluster.default_link();
  slow.mutable_link()->set_bytes_per_s(5e7);
  const absl::StatusOr<std::vector<LinkSensitivity>> links =
      Sensitivities(input, *resolved);
  ASSERT_TRUE(links.ok()) << links.status();
  ASSERT_FALSE(links->empty());
  EXPECT_EQ(links->front().from, 1);
  EXPECT_EQ(links->front().to, 2);
  EXPECT_GT(links->front().growth, 0.3);
  for (const LinkSensitivity& link : *links) {
    EXPECT_FALSE(link.from == 0 && link.to == 2);
  }
}

// Neither what was measured nor a shared card hides a bottleneck.
TEST(Search, SensitivityFollowsMeasuredCollectivesAndCards) {
  PlannerInput input =
      Input({.nodes = 2, .devices_per_node = 4, .network = "ethernet-100"}, 16);
  Plan plan;
  plan.mutable_grid()->set_tp(4);
  plan.mutable_grid()->set_dp(2);
  const absl::StatusOr<Plan> resolved = ResolvePlan(
      plan,
      {.world_size = 8, .global_batch = 16, .num_blocks = 12, .heads = 16});
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  const auto model = ResolveCluster(input.cluster);
  ASSERT_TRUE(model.ok()) << model.status();
  const CollectiveSeconds by_links =
      RingOf(*model, {0, 1, 2, 3}, 4).SecondsOf(CollectiveKind::kAllReduce);
  Cluster::CollectiveTime& time = *input.cluster.add_collective_times();
  time.set_nodes(1);
  time.set_ranks_per_node(4);
  time.set_latency_s(by_links.latency_s);
  time.set_bytes_per_s(0.25 / by_links.s_per_byte);
  time.set_links_latency_s(by_links.latency_s);
  time.set_links_bytes_per_s(1 / by_links.s_per_byte);
  const auto links = Sensitivities(input, *resolved);
  ASSERT_TRUE(links.ok()) << links.status();
  auto growth = [&](int32_t from, int32_t to) {
    double found = 0;
    for (const LinkSensitivity& link : *links) {
      if (link.from == from && link.to == to) found = link.growth;
    }
    return found;
  };
  EXPECT_GT(growth(0, 0), 0.05);
  // Four devices share the card; a link alone is not what they wait for.
  EXPECT_GT(growth(0, LinkSensitivity::kAllNodes), 0.01);
}

}  // namespace
}  // namespace trireme
