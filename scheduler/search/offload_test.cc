// Plans whose blocks stream in from the host: what they take and hold, when
// the search turns to them, and what it says of them.

#include <algorithm>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "scheduler/explain/charts.h"
#include "scheduler/explain/sensitivities.h"
#include "scheduler/explain/tables.h"
#include "scheduler/explain/verdicts.h"
#include "scheduler/plan/plan.h"
#include "scheduler/schedules/schedule.h"
#include "scheduler/search/candidate_plan.h"
#include "scheduler/search/memory_fit.h"
#include "scheduler/search/offload_testing.h"
#include "scheduler/search/search.h"

namespace trireme {
namespace {

// Somebody with one small card wants to fine-tune a model that does not fit it.
TEST(Offload, AModelTooLargeForItsDeviceIsOffloaded) {
  const PlannerInput input = Input();
  const PlanReport report = Planned(input);
  ASSERT_FALSE(report.best.empty());
  const RankedPlan& best = report.best.front();
  ASSERT_TRUE(best.plan.has_offload());
  EXPECT_TRUE(Fits(best.estimate));
  // Copies hide behind a forward that takes as long as they do, from about
  // F / B = 5,000 tokens on; then a microbatch takes its arithmetic, and the
  // first one's forward hides what it can of the optimizer on the host.
  const double samples = best.plan.microbatch_size();
  EXPECT_GE(BlockForwardSeconds(samples), 2 * kBlock / kToDevice);
  const double forwards =
      best.plan.recompute() == Plan::FULL && !best.plan.has_recompute_blocks()
          ? 4
          : 3;
  const double arithmetic =
      16 / samples * kLayers * forwards * BlockForwardSeconds(samples);
  // What is left of the device's memory takes some blocks from the host.
  const double leaving = Leaving(best.plan);
  EXPECT_LT(leaving, kLayers);
  EXPECT_GT(leaving, 0);
  const double host = 30 * leaving * kBlock / kHostMemory;
  const double exposed = std::max(
      0.0,
      host - kLayers *
                 BlockForwardSeconds(
                     best.plan.schedule() == Plan::UNIT_MAJOR ? 16 : samples));
  if (!best.plan.has_recompute_blocks()) {
    EXPECT_NEAR(best.estimate.step_s, arithmetic + exposed,
                0.03 * (arithmetic + exposed));
  }
  // The first update hides behind the blocks that stay.
  EXPECT_NEAR(best.estimate.parts.optimizer_s, exposed, 0.05 * host);
  EXPECT_NEAR(best.estimate.parts.total(), best.estimate.step_s, 1e-9);
  EXPECT_LT(best.estimate.parts.copy_s, 0.03 * best.estimate.step_s);
  // 18 bytes a parameter.
  EXPECT_NEAR(static_cast<double>(best.estimate.host_bytes[0]),
              18 * leaving * kBlock, 0.01 * 18 * leaving * kBlock);
  // Both halves of the answer: why nothing else, and what it costs.
  const std::string summary = VerdictSummary(input, report);
  EXPECT_NE(summary.find("OOM"), std::string::npos) << summary;
  EXPECT_NE(summary.find("CHOSEN"), std::string::npos) << summary;
  const std::string text = OffloadText(input, best);
  EXPECT_NE(text.find("for copies"), std::string::npos) << text;
  EXPECT_NE(text.find("host desk: "), std::string::npos) << text;
  EXPECT_NE(PlanTable(report).find("copies"), std::string::npos);
  const auto resident = Why(input, report, {.offload = false});
  ASSERT_TRUE(resident.ok());
  EXPECT_NE(resident->find("OOM("), std::string::npos) << *resident;
}

// A card that holds two samples' blocks at work, but not what 24 blocks keep of
// them: 25 MB of each and sample.
TEST(Offload, InputsThatDoNotFitTheDeviceGoToTheHost) {
  PlannerInput input = Input();
  input.cluster.mutable_devices(0)->set_memory_bytes(3'500'000'000);
  const PlanReport report = Planned(input);
  ASSERT_FALSE(report.best.empty());
  const RankedPlan& best = report.best.front();
  EXPECT_TRUE(best.plan.offload().activations());
  EXPECT_EQ(best.plan.recompute(), Plan::FULL);
  EXPECT_TRUE(Fits(best.estimate));
  // What stays on the device fits no faster plan.
  for (const Candidate& candidate : report.candidates) {
    if (candidate.activations || !candidate.simulated ||
        candidate.verdict == VerdictCode::kOutOfMemory) {
      continue;
    }
    EXPECT_GE(candidate.step_s, best.estimate.step_s) << ToText(candidate);
  }
  Candidate kept = best.candidate;
  kept.activations = false;
  EXPECT_FALSE(Fits(Estimated(input, kept)));
  // The host holds them beside the blocks' 18 bytes a parameter.
  constexpr double kInput = 2.0 * kTokens * kHidden;
  EXPECT_GT(static_cast<double>(best.estimate.host_bytes[0]),
            18 * kLayers * kBlock + (kLayers - 3) * kInput);
  EXPECT_LT(static_cast<double>(best.estimate.host_bytes[0]),
            1.01 * (18 * kLayers * kBlock + 16 * kLayers * kInput));
  const std::string text = OffloadText(input, best);
  EXPECT_NE(text.find("and the inputs at work stay"), std::string::npos)
      << text;
  EXPECT_NE(ToText(best.candidate).find("inputs of blocks on the host"),
            std::string::npos);
}

// Inputs of 25 MB a sample leave under their blocks' forward while the link
// takes no longer for them than the device for that.
TEST(Offload, InputsHideBehindTheirBlocksUntilTheLinkIsTooSlow) {
  PlannerInput input = Input();
  input.global_batch = 2;
  input.cluster.mutable_nodes(0)->set_host_memory_bytes_per_s(1e15);
  Candidate kept = Offloaded(kLayers, 2);
  Candidate left = kept;
  left.activations = true;
  const double before = Estimated(input, kept).step_s;
  EXPECT_NEAR(Estimated(input, left).step_s, before, 0.01 * before);
  const double forward_s = BlockForwardSeconds(2);
  const double input_bytes = 2 * 2.0 * kTokens * kHidden;
  input.cluster.mutable_devices(0)->set_to_host_bytes_per_s(input_bytes /
                                                            (2 * forward_s));
  // Those of all blocks but the last two take twice as long as their forwards,
  // and gradients leave after them.
  const double slow = Estimated(input, left).step_s;
  EXPECT_GT(slow,
            Estimated(input, kept).step_s + 0.85 * (kLayers - 4) * forward_s);
}

// With a forward of 1, a backward of 2 and a copy of 2 a step's first forward
// takes as long as 24 copies and a block, however many of the 24 blocks may
// stay; backwards hide theirs.
TEST(Offload, AStepBehindASlowLinkTakesItsCopies) {
  PlannerInput input = Input();
  input.global_batch = 1;
  input.cluster.mutable_nodes(0)->set_host_memory_bytes_per_s(1e15);
  const double forward_s = BlockForwardSeconds(1);
  Cluster::Device& device = *input.cluster.mutable_devices(0);
  device.set_to_device_bytes_per_s(2 * kBlock / (2 * forward_s));
  device.set_to_host_bytes_per_s(1e15);
  for (const int32_t resident : {2, 8, 16}) {
    Candidate candidate = Offloaded(resident, 1);
    candidate.recompute = Plan::NONE;
    const Estimate estimate = Estimated(input, candidate);
    EXPECT_NEAR(estimate.step_s, 97 * forward_s, 0.01 * estimate.step_s)
        << resident;
    EXPECT_NEAR(estimate.parts.copy_s, (97 - 72) * forward_s,
                0.01 * estimate.step_s)
        << resident;
  }
}

// Gradients leave in fp32, and where there are several microbatches come in
// before.
TEST(Offload, SlowGradientsHoldBackwardsUp) {
  PlannerInput input = Input();
  input.global_batch = 2;
  input.cluster.mutable_devices(0)->set_to_host_bytes_per_s(2e9);
  const Estimate slow_link = Estimated(input, Offloaded(2, 2));
  // Updates take longer than the forward that they run under.
  EXPECT_NEAR(slow_link.step_s,
              kLayers * (30 * kBlock / kHostMemory + 4 * kBlock / 2e9),
              0.03 * slow_link.step_s);
  input = Input();
  input.global_batch = 2;
  input.cluster.mutable_devices(0)->set_to_device_bytes_per_s(3e9);
  const Estimate slow_way_in = Estimated(input, Offloaded(kLayers, 1));
  // All blocks come in under the first forward, which takes as long.
  EXPECT_NEAR(slow_way_in.step_s,
              kLayers * (BlockForwardSeconds(1) +
                         2 * (4 * kBlock / kToHost + 4 * kBlock / 3e9) +
                         2 * kBlock / 3e9),
              0.03 * slow_way_in.step_s);
}

TEST(Offload, ADeviceHoldsItsUnitsActivationsAndTwoUnitsGradients) {
  const PlannerInput input = Input();
  for (const int32_t resident : {2, 5, 24}) {
    const MemoryBytes peak =
        Estimated(input, Offloaded(resident, 1)).peak.front();
    EXPECT_NEAR(static_cast<double>(peak.parameters), resident * 2 * kBlock,
                0.01 * resident * 2 * kBlock);
    EXPECT_NEAR(static_cast<double>(peak.gradients), 2 * 4 * kBlock,
                0.01 * 8 * kBlock);
    EXPECT_EQ(peak.optimizer, 0);
    // With FULL recomputation a block keeps its input, in bf16.
    EXPECT_NEAR(static_cast<double>(peak.activations),
                (kLayers + 3) * 2.0 * kTokens * kHidden,
                0.1 * kLayers * 2 * kTokens * kHidden);
  }
}

// All 18 bytes of their parameters move, and the host has fewer to update.
TEST(Offload, BlocksThatStayTakeTheDeviceInPlaceOfTheHost) {
  PlannerInput input = Input();
  input.global_batch = 1;
  Candidate candidate = Offloaded(2, 1);
  const Estimate all_leave = Estimated(input, candidate);
  candidate.device_blocks = 6;
  const Estimate some_stay = Estimated(input, candidate);
  const auto device = [](const Estimate& estimate) {
    return static_cast<double>(estimate.peak.front().total());
  };
  EXPECT_NEAR(device(some_stay) - device(all_leave), 6 * 18 * kBlock,
              0.01 * 6 * 18 * kBlock);
  EXPECT_NEAR(static_cast<double>(some_stay.host_bytes[0]),
              18 * (kLayers - 6) * kBlock, 0.01 * 18 * kLayers * kBlock);
  // Nor do the last gradients have a way to go.
  const double fewer_s = 6 * 30 * kBlock / kHostMemory + 4 * kBlock / kToHost;
  EXPECT_NEAR(all_leave.step_s - some_stay.step_s, fewer_s, 0.05 * fewer_s);
}

// As few as hide the copies of a backward, as all come in under the only
// forward; one fewer does not.
TEST(Offload, AsManyUnitsStayAsHideTheCopies) {
  PlannerInput input = Input();
  input.cluster.mutable_devices(0)->set_to_host_bytes_per_s(1e15);
  input.cluster.mutable_nodes(0)->set_host_memory_bytes_per_s(1e15);
  input.global_batch = 1;
  for (const double relative : {0.5, 1.2, 2.95, 5.9, 100.0}) {
    const double copy_s = relative * BlockForwardSeconds(1);
    input.cluster.mutable_devices(0)->set_to_device_bytes_per_s(2 * kBlock /
                                                                copy_s);
    const auto cluster = ResolveCluster(input.cluster);
    ASSERT_TRUE(cluster.ok());
    const auto plan =
        PlanOfCandidate(input.model, *cluster, 1, Offloaded(2, 1));
    ASSERT_TRUE(plan.ok()) << plan.status();
    const PlanCoster coster(input.model, *cluster, *plan);
    const int32_t chosen = ChooseResidentUnits(*plan, coster.CostsOf(0),
                                               MostInFlight(OrderOf(*plan)));
    const double in_forward =
        copy_s + (kLayers - 1) * std::max(0.0, copy_s - BlockForwardSeconds(1));
    const auto exposed_s = [&](int32_t resident) {
      return Estimated(input, Offloaded(resident, 1)).parts.copy_s - in_forward;
    };
    EXPECT_NEAR(exposed_s(chosen), 0,
                0.02 * BlockForwardSeconds(1) + 0.002 * chosen * copy_s)
        << relative;
    EXPECT_GT(exposed_s(chosen - 1), 0.1 * BlockForwardSeconds(1)) << relative;
    EXPECT_GE(chosen, 2);
  }
  // Copies as long as nearly two passes: of 24 units 11 come in while 22
  // compute. Of several microbatches forwards have their copies, too.
  const auto chosen = [&](int64_t batch, Plan::Schedule schedule,
                          double passes) {
    input.cluster.mutable_devices(0)->set_to_device_bytes_per_s(
        2 * kBlock / (1.95 * passes * BlockForwardSeconds(1)));
    const auto cluster = ResolveCluster(input.cluster);
    Candidate candidate = Offloaded(2, 1);
    candidate.schedule = schedule;
    const auto plan = PlanOfCandidate(input.model, *cluster, batch, candidate);
    EXPECT_TRUE(plan.ok()) << plan.status();
    return ChooseResidentUnits(
        *plan, PlanCoster(input.model, *cluster, *plan).CostsOf(0),
        MostInFlight(OrderOf(*plan)));
  };
  EXPECT_EQ(chosen(1, Plan::ONE_F_ONE_B, 3), 13);
  EXPECT_EQ(chosen(2, Plan::ONE_F_ONE_B, 1), 13);
  EXPECT_EQ(chosen(2, Plan::UNIT_MAJOR, 2 * 3), 13);
  EXPECT_EQ(chosen(2, Plan::UNIT_MAJOR, 3), 2);
}

// With a copy that takes two forwards eight microbatches of one sample wait for
// each of theirs; unit by unit they wait for the first alone, and the host's
// updates hide behind all of them.
TEST(Offload, UnitMajorWeightsCrossTwiceAStep) {
  PlannerInput input = Input();
  input.global_batch = 8;
  const double forward_s = BlockForwardSeconds(1);
  const double copy_s = 2 * forward_s;
  input.cluster.mutable_devices(0)->set_to_device_bytes_per_s(2 * kBlock /
                                                              copy_s);
  Candidate candidate = Offloaded(2, 1);
  const Estimate by_microbatch = Estimated(input, candidate);
  candidate.schedule = Plan::UNIT_MAJOR;
  const Estimate estimate = Estimated(input, candidate);
  const double arithmetic = 8 * kLayers * 4 * forward_s;
  const double first = 30 * kBlock / kHostMemory + copy_s;
  EXPECT_NEAR(estimate.step_s, first + arithmetic, 0.01 * arithmetic);
  EXPECT_GT(by_microbatch.step_s, 1.2 * arithmetic);
  EXPECT_GT(estimate.peak.front().activations,
            6 * by_microbatch.peak.front().activations);
}

// Small microbatches behind a slow link, and memory for their activations.
TEST(Offload, ASlowLinkIsCrossedUnitByUnit) {
  PlannerInput input = Input();
  input.model.tokens = 256;
  input.cluster.mutable_devices(0)->set_to_device_bytes_per_s(5e9);
  input.options.space.max_microbatch_size_without_stages = 1;
  const PlanReport report = Planned(input);
  ASSERT_FALSE(report.best.empty());
  EXPECT_EQ(report.best.front().plan.schedule(), Plan::UNIT_MAJOR)
      << PlanTable(report);
}

TEST(Offload, WhereFewerFitFewerStay) {
  PlannerInput input = Input();
  // Copies that hide with nearly all units only.
  input.cluster.mutable_devices(0)->set_to_device_bytes_per_s(0.1e9);
  input.cluster.mutable_devices(0)->set_memory_bytes(6'000'000'000);
  const PlanReport report = Planned(input);
  ASSERT_FALSE(report.best.empty());
  const RankedPlan& best = report.best.front();
  ASSERT_TRUE(best.plan.has_offload());
  EXPECT_LT(best.plan.offload().resident_units(), 24u);
  EXPECT_TRUE(Fits(best.estimate));
  EXPECT_GT(best.estimate.parts.copy_s, 0.1 * best.estimate.step_s);
}

// Looking again, now at plans that offload, repeats no refusal.
TEST(Offload, NoRefusalIsListedTwice) {
  PlannerInput input = Input();
  Cluster::Node& second = *input.cluster.add_nodes();
  second = input.cluster.nodes(0);
  second.set_name("other");
  input.cluster.mutable_default_link()->set_bytes_per_s(1e9);
  input.model.layers = 40;
  const PlanReport report = Planned(input);
  ASSERT_FALSE(report.best.empty());
  EXPECT_TRUE(report.best.front().plan.has_offload());
  EXPECT_EQ(std::count_if(report.candidates.begin(), report.candidates.end(),
                          [](const Candidate& candidate) {
                            return candidate.tp == 2 &&
                                   candidate.verdict ==
                                       VerdictCode::kTpCrossesNode;
                          }),
            1);
}

// Asking does not find a reason to offload where there is none.
TEST(Offload, WherePlansFitNoneWithItIsFaster) {
  PlannerInput input = Input();
  input.model.layers = 8;
  const PlanReport report = Planned(input);
  ASSERT_FALSE(report.best.empty());
  EXPECT_FALSE(report.best.front().plan.has_offload());
  for (const Candidate& candidate : report.candidates) {
    EXPECT_FALSE(candidate.offload);
  }
  const auto why = Why(input, report, {.offload = true});
  ASSERT_TRUE(why.ok()) << why.status();
  for (const char* part : {"offload but for", "evaluated: DOMINATED(by tp 1",
                           "s for copies and", "for the host's optimizer"}) {
    EXPECT_NE(why->find(part), std::string::npos) << part << ": " << *why;
  }
  input.options.space.offload = OffloadSearch::kToo;
  const PlanReport both = Planned(input);
  EXPECT_EQ(both.best.front().plan.SerializeAsString(),
            report.best.front().plan.SerializeAsString());
  EXPECT_GT(both.candidates.size(), report.candidates.size());
  // A kind of device that no node has need not be known.
  Cluster::Device& unused = *input.cluster.add_devices();
  unused = input.cluster.devices(0);
  unused.set_name("unused");
  unused.clear_to_device_bytes_per_s();
  PlanReport asked = report;
  asked.cluster = *ResolveCluster(input.cluster);
  const auto other = Why(input, asked, {.offload = true});
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(other->find("UNSUPPORTED"), std::string::npos) << *other;
  // Copies of unknown rate are no copies for nothing.
  input.cluster.mutable_devices(0)->clear_to_device_bytes_per_s();
  asked.cluster = *ResolveCluster(input.cluster);
  const auto unknown = Why(input, asked, {.offload = true});
  ASSERT_TRUE(unknown.ok());
  EXPECT_EQ(unknown->find("UNSUPPORTED(cluster.devices[0].to_device_bytes_per_s"
                          ": found none"),
            0u)
      << *unknown;
}

// Whoever looks for what holds an offloaded step up must find it in the list.
TEST(Offload, SensitivityNamesTheHostsLink) {
  PlannerInput input = Input();
  input.global_batch = 1;
  input.cluster.mutable_nodes(0)->set_host_memory_bytes_per_s(1e15);
  const double forward_s = BlockForwardSeconds(1);
  // A copy in takes two forwards, with half of the rate four.
  Cluster::Device& device = *input.cluster.mutable_devices(0);
  device.set_to_device_bytes_per_s(2 * kBlock / (2 * forward_s));
  device.set_to_host_bytes_per_s(1e15);
  const auto cluster = ResolveCluster(input.cluster);
  ASSERT_TRUE(cluster.ok());
  Candidate candidate = Offloaded(2, 1);
  candidate.recompute = Plan::NONE;
  const auto plan = PlanOfCandidate(input.model, *cluster, 1, candidate);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const auto links = Sensitivities(input, *plan);
  ASSERT_TRUE(links.ok()) << links.status();
  ASSERT_EQ(links->size(), 1u);
  EXPECT_EQ(links->front().to, LinkSensitivity::kHost);
  // 24 copies into a forward and 22 into a backward: 49 + 48 before, and then
  // 24 * 4 + 1 for the forward and 2 + 22 * 4 + 2 for the backward.
  EXPECT_NEAR(links->front().growth, (97.0 + 92 - 97) / 97, 0.01);
  EXPECT_NE(SensitivityTable(input, *links).find("desk to its host and back"),
            std::string::npos);
}

TEST(Offload, TheTimelineHasLanesForCopies) {
  PlannerInput input = Input();
  const Estimate estimate = Estimated(input, Offloaded(2, 4));
  const std::string offloaded =
      TimelineSvg(estimate.program, estimate.simulation, "");
  for (const char* part :
       {"copy in", "copy out", "<title>Fetch chunk=0 unit=2</title>",
        "<title>SaveGradients mb=0 chunk=0 unit=3</title>",
        "<title>Update chunk=0 bucket=0 unit=23</title>"}) {
    EXPECT_NE(offloaded.find(part), std::string::npos) << part;
  }
  // Copies too short to be seen one by one are drawn together.
  input.global_batch *= 64;
  const Estimate longer = Estimated(input, Offloaded(2, 4));
  const std::string many = TimelineSvg(longer.program, longer.simulation, "");
  EXPECT_EQ(many.find("<title>Fetch chunk=0"), std::string::npos);
  EXPECT_NE(many.find(" times Fetch</title>"), std::string::npos);
  input.model.layers = 8;
  Candidate resident;
  resident.microbatch_size = 4;
  const Estimate without = Estimated(input, resident);
  EXPECT_EQ(
      TimelineSvg(without.program, without.simulation, "").find("copy in"),
      std::string::npos);
}

}  // namespace
}  // namespace trireme
