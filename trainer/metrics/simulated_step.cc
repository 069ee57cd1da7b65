#include "trainer/metrics/simulated_step.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <limits>

#include "parallel/executor/staying_skips.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "scheduler/program/program.h"
#include "scheduler/simulator/simulator.h"

namespace trireme {
namespace {

// Messages each way; the fastest counts.
constexpr int kMessages = 4;

// Figures of a stage and of a pipeline rank, as they are summed.
enum StageFigure { kForward, kInput, kWeight, kUpdate, kStageFigures };
enum RankFigure { kReduction, kClip, kBefore, kRankFigures };

// The time of each of `buckets` reductions that leaves `exposed` seconds after
// a last backward of `backward` seconds, behind which the simulator runs them:
// with r each, the longer of r and backward / buckets + buckets r - backward.
double BucketSeconds(double exposed, double backward, int buckets) {
  return std::min(exposed,
                  (exposed + backward * (1 - 1.0 / buckets)) / buckets);
}

}  // namespace

StepSimulator::StepSimulator(RankModel& model, const ProcessorShare& share)
    : model_(model), share_(share) {
  if (!model.partial()) MeasureLinks();
}

double StepSimulator::SendAndReceive(
    int peer, const std::vector<BoundarySpec>& specs) const {
  using Clock = std::chrono::steady_clock;
  double fastest = std::numeric_limits<double>::infinity();
  for (int i = 0; i < kMessages; ++i) {
    const auto start = Clock::now();
    Exchange(peer, specs, /*send=*/true);
    Exchange(peer, specs, /*send=*/false);
    const std::chrono::duration<double> there_and_back = Clock::now() - start;
    fastest = std::min(fastest, there_and_back.count() / 2);
  }
  return fastest;
}

void StepSimulator::ReceiveAndSend(
    int peer, const std::vector<BoundarySpec>& specs) const {
  for (int i = 0; i < kMessages; ++i) {
    Exchange(peer, specs, /*send=*/false);
    Exchange(peer, specs, /*send=*/true);
  }
}

void StepSimulator::Exchange(int peer, const std::vector<BoundarySpec>& specs,
                             bool send) const {
  Communicators& communicators = model_.context().communicators();
  std::vector<Tensor> tensors;
  std::vector<Event> events;
  for (const BoundarySpec& spec : specs) {
    const Tensor& tensor = tensors.emplace_back(
        Tensor::Zeros(model_.context().device(), spec.shape, spec.dtype,
                      MemoryCategory::kActivations, "measured message"));
    const int tag = static_cast<int>(events.size());
    events.push_back(
        send ? communicators.PipelineSend(peer).Send(
                   tensor, Communicators::kReceiver, tag, "measured message")
             : communicators.PipelineReceive(peer).Receive(
                   tensor, Communicators::kSender, tag, "measured message"));
  }
  for (Event& event : events) event.Wait();
}

void StepSimulator::MeasureLinks() {
  const Program& program = model_.program();
  const int ranks = program.num_ranks();
  const int own = model_.grid().coordinate(Axis::kPipeline);
  link_s_.assign(static_cast<size_t>(ranks) * ranks, 0);
  std::vector<bool> measured(link_s_.size(), false);
  for (int32_t hop = 0; hop + 1 < program.num_stages(); ++hop) {
    const StageLocation& below = program.stages[hop];
    const StageLocation& above = program.stages[hop + 1];
    const int up = below.rank * ranks + above.rank;
    const int down = above.rank * ranks + below.rank;
    if (below.rank == above.rank || measured[up]) continue;
    measured[up] = measured[down] = true;
    if (own == below.rank) {
      const Chunk& sender = model_.chunk(below.chunk);
      link_s_[up] = link_s_[down] = SendAndReceive(
          above.rank, Travelling(sender.Boundary(sender.num_units())));
    } else if (own == above.rank) {
      ReceiveAndSend(below.rank,
                     Travelling(model_.chunk(above.chunk).Boundary(0)));
    }
  }
  model_.context().communicators().control().Max(std::span(link_s_), "links");
}

std::optional<SimulatedStep> StepSimulator::Simulate(
    const StepCosts& costs, double before_s,
    std::vector<TraceEvent>* trace) const {
  const Program& program = model_.program();
  // Of offloaded units no times are measured apart.
  if (model_.partial() || program.offload.has_value()) return std::nullopt;
  const int own = model_.grid().coordinate(Axis::kPipeline);
  const size_t first_of_ranks = program.stages.size() * kStageFigures;
  std::vector<double> sums(first_of_ranks + program.ranks.size() * kRankFigures,
                           0.0);
  for (size_t chunk = 0; chunk < costs.chunks.size(); ++chunk) {
    double* figures = &sums[StageOf(program, own, static_cast<int32_t>(chunk)) *
                            kStageFigures];
    figures[kForward] = costs.chunks[chunk].forward;
    figures[kInput] = costs.chunks[chunk].backward_input;
    figures[kWeight] = costs.chunks[chunk].backward_weight;
    figures[kUpdate] = costs.chunks[chunk].update;
  }
  double* own_figures = &sums[first_of_ranks + own * kRankFigures];
  own_figures[kReduction] = costs.reduction;
  own_figures[kClip] = costs.clip;
  own_figures[kBefore] = costs.begin;
  // The last rank to come to the norm waits least.
  std::array most = {-costs.clip_wait, before_s};
  Control& control = model_.context().communicators().control();
  control.SumAndMax(sums, most, "costs");
  if (control.rank() != 0) return std::nullopt;

  const double siblings =
      static_cast<double>(model_.grid().num_ranks()) / program.num_ranks();
  CostModel cost = UniformCost(program, ChunkCost());
  // What all ranks do at once takes longer where they share processors; what
  // some do while others wait is for the simulator to say.
  const double fraction = shares_processors() ? share_.fraction() : 1;
  double scale = 1;
  if (shares_processors()) {
    const double processors = program.num_ranks() * fraction;
    cost.processors = static_cast<int32_t>(std::ceil(processors - 1e-9));
    scale = cost.processors / processors;
  }
  double before = 0;
  for (int32_t stage = 0; stage < program.num_stages(); ++stage) {
    const StageLocation& at = program.stages[stage];
    const double* figures = &sums[stage * kStageFigures];
    const double runs = siblings * program.microbatches;
    ChunkCost& chunk = cost.chunks[at.rank][at.chunk];
    chunk.forward_s = scale * figures[kForward] / runs;
    chunk.backward_s = chunk.backward_input_s = scale * figures[kInput] / runs;
    chunk.backward_weight_s = scale * figures[kWeight] / runs;
    chunk.update_s =
        scale * figures[kUpdate] / siblings / program.buckets[stage];
    if (at.chunk > 0) continue;
    // The backward of a rank's first chunk comes last.
    const double* of_rank = &sums[first_of_ranks + at.rank * kRankFigures];
    const double last_backward = chunk.backward_weight_s > 0
                                     ? chunk.backward_weight_s
                                     : chunk.backward_s;
    chunk.reduce_s = BucketSeconds(of_rank[kReduction] / siblings / fraction,
                                   last_backward, program.buckets[stage]);
    cost.clip_s = std::max(cost.clip_s, of_rank[kClip] / siblings / fraction);
    before = std::max(before, of_rank[kBefore] / siblings / fraction);
  }
  cost.clip_s += -most[0];
  const absl::StatusOr<Simulation> free_messages =
      trireme::Simulate(program, cost);
  if (!free_messages.ok()) {
    LOG(WARNING) << "no simulated step: " << MessageOf(free_messages.status());
    return std::nullopt;
  }
  SimulatedStep result;
  for (const RankTime& time : free_messages->ranks) {
    result.bubble_s += time.bubble_s / program.num_ranks();
  }
  // A message has its link for as long as it was measured to take.
  cost.links.resize(link_s_.size());
  for (size_t i = 0; i < link_s_.size(); ++i) {
    if (link_s_[i] > 0) cost.links[i].bytes_per_s = 1 / link_s_[i];
  }
  for (auto& chunks : cost.chunks) {
    for (ChunkCost& chunk : chunks) chunk.message_bytes = 1;
  }
  const absl::StatusOr<Simulation> simulation =
      trireme::Simulate(program, cost);
  if (!simulation.ok()) {
    LOG(WARNING) << "no simulated step: " << MessageOf(simulation.status());
    return std::nullopt;
  }
  if (trace != nullptr) *trace = SimulationTrace(program, *simulation);
  result.step_s = simulation->step_s + before + most[1];
  return result;
}

}  // namespace trireme
