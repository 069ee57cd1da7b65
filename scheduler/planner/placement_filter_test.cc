#include "scheduler/planner/placement_filter.h"

#include <algorithm>
#include <set>
#include <vector>

#include "gtest/gtest.h"
#include "scheduler/planner/candidate_plan.h"
#include "scheduler/planner/estimate.h"
#include "scheduler/planner/node_assignments.h"
#include "scheduler/planner/unlike_clusters.h"

namespace trireme {
namespace {

using Nodes = std::vector<int32_t>;

std::vector<Candidate> PossibleCandidates(const PlannerInput& input,
                                          const ClusterModel& cluster) {
  std::vector<Candidate> candidates = EnumerateCandidates(
      input.model, cluster, input.global_batch, input.options.space);
  std::erase_if(candidates, [](const Candidate& candidate) {
    return candidate.verdict != VerdictCode::kPending;
  });
  return candidates;
}

std::vector<Nodes> AllNodes(const ClusterModel& cluster, int32_t unit_ranks) {
  std::vector<Nodes> all;
  NodeAssignments(cluster, unit_ranks).ForEach([&](const Nodes& nodes) {
    all.push_back(nodes);
  });
  return all;
}

// Devices of two kinds, the slower of which has little memory.
void MakeOneSmall(PlannerInput& input) {
  Cluster::Device& small = *input.cluster.add_devices();
  small = input.cluster.devices(0);
  small.set_name("small");
  small.set_achieved_bf16_flops(small.achieved_bf16_flops() / 4);
  small.set_memory_bytes(small.reserved_bytes() + (uint64_t{6} << 30));
  input.cluster.mutable_nodes(0)->set_device("small");
}

// What the filter leaves out is never simulated: were it too strict, the best
// plan would be lost without a trace. Every candidate, at some placements each,
// with limits just above what simulation gives for these.
TEST(PlacementFilter, KeepsWhatSimulationFindsFaster) {
  uint32_t random = 1;
  for (const std::vector<uint32_t>& devices :
       std::vector<std::vector<uint32_t>>{
           {2, 2}, {2, 1, 1}, {1, 1, 1, 1, 1, 1}, {2, 2, 2, 2}, {4, 2, 2}}) {
    for (const RuntimeTraits& traits :
         {RuntimeTraits(), RuntimeTraits{.overlap_gradients = false,
                           .scatter_messages = true,
                           .blocking_messages = true,
                           .overlap_tensor_parallel = true}}) {
      PlannerInput input =
          UnlikeCluster(devices, static_cast<uint32_t>(devices.size()) + 2);
      input.global_batch = 24;
      MakeOneSmall(input);
      if (traits.scatter_messages) {
        input.cluster.set_collectives(Cluster::DIRECT);
      }
      const auto cluster = ResolveCluster(input.cluster);
      ASSERT_TRUE(cluster.ok()) << cluster.status();
      int kept = 0, too_large = 0;
      for (const Candidate& candidate : PossibleCandidates(input, *cluster)) {
        const std::vector<Nodes> all = AllNodes(*cluster, candidate.tp);
        for (int sample = 0; sample < 2; ++sample) {
          random = random * 1664525 + 1013904223;
          const Nodes& nodes = all[(random >> 8) % all.size()];
          const auto plan = PlanOfCandidate(
              input.model, *cluster, input.global_batch, traits, candidate,
              PhysicalRanks(*cluster, candidate.tp, nodes));
          ASSERT_TRUE(plan.ok()) << plan.status();
          const auto estimate =
              EstimatePlan(input.model, *cluster, *plan, traits);
          ASSERT_TRUE(estimate.ok()) << estimate.status();
          if (WorstOverflow(*estimate).bytes > 0) {
            ++too_large;
            continue;
          }
          ++kept;
          ASSERT_TRUE(CanFilterPlacements(*cluster, *plan));
          RingsByNodes rings;
          PlacementFilter filter(input.model, *cluster, *plan, traits,
                                 estimate->step_s * (1 + 1e-12), rings);
          for (size_t i = 1; i <= nodes.size(); ++i) {
            ASSERT_TRUE(filter.Keeps(Nodes(nodes.begin(), nodes.begin() + i)))
                << ToText(candidate) << ", with " << i << " units placed";
          }
        }
      }
      EXPECT_GT(kept, 100);
      EXPECT_GT(too_large, 10);
    }
  }
}

// Asked about one placement after another it remembers what they share.
// Whatever came before, each must get the answer that it would get alone; and
// of those that are slower few may be left, or searching them takes for ever.
TEST(PlacementFilter, SharesWhatPlacementsHaveInCommon) {
  const PlannerInput input = UnlikeCluster({2, 2, 2}, 3);
  const auto cluster = ResolveCluster(input.cluster);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  const std::vector<Candidate> candidates = PossibleCandidates(input, *cluster);
  struct Placed {
    Plan plan;
    Nodes nodes;
    double step_s = 0;
  };
  std::vector<std::vector<Placed>> plans;  // [candidate][placement]
  std::vector<double> steps;
  for (size_t i = 0; i < candidates.size(); i += 37) {
    const Candidate& candidate = candidates[i];
    plans.emplace_back();
    for (const Nodes& nodes : AllNodes(*cluster, candidate.tp)) {
      const auto plan = PlanOfCandidate(
          input.model, *cluster, input.global_batch, input.traits, candidate,
          PhysicalRanks(*cluster, candidate.tp, nodes));
      ASSERT_TRUE(plan.ok()) << plan.status();
      const auto estimate =
          EstimatePlan(input.model, *cluster, *plan, input.traits);
      ASSERT_TRUE(estimate.ok()) << estimate.status();
      plans.back().push_back({*plan, nodes, estimate->step_s});
      steps.push_back(estimate->step_s);
    }
  }
  std::sort(steps.begin(), steps.end());
  const double limit_s = steps[steps.size() / 20];
  size_t slower = 0;
  for (const std::vector<Placed>& of_candidate : plans) {
    const Plan& plan = of_candidate.front().plan;
    RingsByNodes rings;
    const auto filter = [&] {
      return PlacementFilter(input.model, *cluster, plan, input.traits, limit_s,
                             rings);
    };
    std::set<Nodes> together, alone;
    PlacementFilter common = filter();
    NodeAssignments(*cluster, static_cast<int32_t>(plan.grid().tp()))
        .ForEach([&](const Nodes& nodes) { return common.Keeps(nodes); },
                 [&](const Nodes& nodes) { together.insert(nodes); });
    for (const Placed& placed : of_candidate) {
      PlacementFilter own = filter();
      bool keeps = true;
      for (size_t units = 1; keeps && units <= placed.nodes.size(); ++units) {
        keeps = own.Keeps(
            Nodes(placed.nodes.begin(), placed.nodes.begin() + units));
      }
      if (!keeps) continue;
      alone.insert(placed.nodes);
      if (placed.step_s > limit_s) ++slower;
    }
    EXPECT_EQ(together, alone) << plan.DebugString();
  }
  EXPECT_LT(slower, steps.size() / 20);
}

// A field that the bounds do not know may make a plan faster than they think.
TEST(PlacementFilter, LeavesUnknownPlansAlone) {
  const PlannerInput input = UnlikeCluster({2, 2}, 1);
  const auto cluster = ResolveCluster(input.cluster);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  Plan plan;
  EXPECT_TRUE(CanFilterPlacements(*cluster, plan));
  plan.mutable_skip();
  EXPECT_FALSE(CanFilterPlacements(*cluster, plan));
}

}  // namespace
}  // namespace trireme
