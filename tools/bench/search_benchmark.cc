// Seconds that the planner takes for 1,024 devices whose nodes are linked at
// different rates, or all alike: search_benchmark [NODES [uniform]]; and the
// simulator for a thousand stages. Both beside what is promised of one core.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "scheduler/pieces/transformer_pieces_testing.h"
#include "scheduler/schedules/orders.h"
#include "scheduler/search/search.h"
#include "scheduler/simulator/simulator.h"

namespace trireme {
namespace {

constexpr double kPromisedPlanningS = 30;
constexpr double kPromisedSimulationS = 1;

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

const char* Kept(double seconds, double promised) {
  return seconds <= promised ? "kept" : "NOT KEPT";
}

// Of 1F1B on a thousand ranks.
void PrintSimulation(int32_t microbatches) {
  constexpr int32_t kRanks = 1000;
  const Program program =
      BuildProgram(OneFOneBOrder(kRanks, microbatches), OneStagePerRank(kRanks),
                   microbatches, std::vector<int32_t>(kRanks, 1));
  int64_t instructions = 0;
  for (const auto& list : program.ranks) {
    instructions += static_cast<int64_t>(list.size());
  }
  const CostModel cost =
      UniformCost(program, {.forward_s = 1, .backward_s = 2});
  const auto start = std::chrono::steady_clock::now();
  const absl::StatusOr<Simulation> simulation = Simulate(program, cost);
  const double seconds = SecondsSince(start);
  if (!simulation.ok()) {
    std::fprintf(stderr, "%s\n", simulation.status().ToString().c_str());
    return;
  }
  std::printf(
      "1F1B on %d ranks, %d microbatches, %.1f million instructions: simulated "
      "in %.2f s (promised %.0f s: %s)\n",
      kRanks, microbatches, static_cast<double>(instructions) / 1e6, seconds,
      kPromisedSimulationS, Kept(seconds, kPromisedSimulationS));
}

int Main(int argc, char** argv) {
  const int64_t nodes = argc > 1 ? std::atoll(argv[1]) : 128;
  PlannerInput input;
  input.model.name = "DiT 14B";
  input.model.layers = 40;
  input.model.hidden = 5120;
  input.model.mlp_hidden = 13824;
  input.model.heads = 40;
  input.model.tokens = 32768;
  input.model.text = ModelShape::Text::kCross;
  input.model.text_tokens = 512;
  input.model.pieces = PiecesByFormulas({.modulation_parameters = 6 * 5120});
  input.global_batch = 1024;
  absl::StatusOr<Cluster> cluster =
      DescribeCluster({.device = "H100", .nodes = nodes, .network = "ndr"});
  if (!cluster.ok()) {
    std::fprintf(stderr, "%s\n", cluster.status().ToString().c_str());
    return 1;
  }
  input.cluster = *std::move(cluster);
  // Every pair and direction has its own rate, a quarter to all of the card's.
  uint32_t random = 1;
  for (int64_t from = 0; argc < 3 && from < nodes; ++from) {
    for (int64_t to = 0; to < nodes; ++to) {
      if (from == to) continue;
      random = random * 1664525 + 1013904223;
      Cluster::NodeLink& link = *input.cluster.add_links();
      link.set_from(static_cast<uint32_t>(from));
      link.set_to(static_cast<uint32_t>(to));
      *link.mutable_link() = input.cluster.default_link();
      link.mutable_link()->set_bytes_per_s(
          input.cluster.default_link().bytes_per_s() *
          (0.25 + 0.75 * (random >> 8) / (1 << 24)));
    }
  }
  const auto start = std::chrono::steady_clock::now();
  const absl::StatusOr<PlanReport> report = MakePlan(input);
  const double seconds = SecondsSince(start);
  if (!report.ok()) {
    std::fprintf(stderr, "%s\n", report.status().ToString().c_str());
    return 1;
  }
  std::printf(
      "%lld devices: %.2f s (promised %.0f s: %s), %zu candidates, %lld "
      "simulated\n",
      static_cast<long long>(8 * nodes), seconds, kPromisedPlanningS,
      Kept(seconds, kPromisedPlanningS), report->candidates.size(),
      static_cast<long long>(report->simulated));
  for (const RankedPlan& plan : report->best) {
    std::printf("%.4f s, MFU %.1f %%: %s\n", plan.estimate.step_s,
                100 * plan.estimate.mfu, ToText(plan.candidate).c_str());
  }
  for (const int32_t microbatches : {125, 2000}) PrintSimulation(microbatches);
  return 0;
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) { return trireme::Main(argc, argv); }
