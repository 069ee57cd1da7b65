#include "trainer/preflight/tune_experts.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>

#include "fmt/format.h"
#include "moe/moe_layer.h"
#include "parallel/grid/communicators.h"
#include "parallel/grid/context.h"
#include "parallel/parameters/parameter_store.h"
#include "runtime/core/median.h"
#include "runtime/core/status.h"
#include "runtime/device/host.h"
#include "trainer/rank/plan_layout.h"

namespace trireme {
namespace {

using Moves = ExpertExchange::Moves;

// Of the rank that receives most; each half as many again as the last.
constexpr double kLoadStep = 1.5;
// A way is taken for another load too while it is not slower by more.
constexpr double kNoise = 0.02;
// The fastest of many ways by few measurements is one that was lucky. Chosen is
// from the fastest so many, if they take at most so many times as long as the
// first, by measurements of their own.
constexpr size_t kFinalists = 6;
constexpr double kNear = 1.4;
constexpr int kFinalRepetitions = 2;  // times those of the others

std::vector<double> LoadsUpTo(double most) {
  std::vector<double> loads;
  for (double load = 1; load < most; load *= kLoadStep) loads.push_back(load);
  loads.push_back(most);
  return loads;
}

constexpr int kChunks[] = {1, 2, 4, 8};
// Of a way's column in the report, and what is left free before its name.
constexpr size_t kColumn = 16;
constexpr size_t kGap = 2;

struct Way {
  std::string name;
  Moves moves;
  bool by_nodes;
  int chunks;
  int row_copies;

  size_t column() const { return std::max(kColumn, name.size() + kGap); }
};

std::vector<Way> WaysOf(const ExpertExchange& exchange, int ep) {
  std::vector<Way> ways = {{.name = "weights",
                            .moves = Moves::kWeights,
                            .by_nodes = false,
                            .chunks = 1,
                            .row_copies = 0}};
  for (int copies = exchange.slices; copies > 0; --copies) {
    if (exchange.slices % copies != 0) continue;
    for (const bool by_nodes : {false, true}) {
      if (by_nodes && (exchange.node_ranks == 1 || exchange.node_ranks == ep)) {
        continue;
      }
      for (const int chunks : kChunks) {
        if (exchange.deduplicates && chunks > 1) continue;
        std::string name = "rows";
        if (copies < exchange.slices) name += fmt::format(" to {}", copies);
        if (by_nodes) name += " by nodes";
        if (chunks > 1) name += fmt::format(" in {}", chunks);
        ways.push_back(
            {std::move(name), Moves::kRows, by_nodes, chunks, copies});
      }
    }
  }
  return ways;
}

// Where all routes go to the experts of one rank, or to the slices of one
// expert.
double MostLoad(const MoeConfig& config, int ep) {
  return static_cast<double>(std::min<int64_t>(ep, config.experts));
}

// Int32 [tokens, k]: of all routes the first rank's experts have their share at
// this load.
Tensor RoutesOf(Device& device, int64_t tokens, const MoeConfig& config, int ep,
                double load) {
  const int64_t own = std::max<int64_t>(1, config.experts / ep);
  std::vector<int32_t> experts(tokens * config.top_k);
  const auto hot = static_cast<int64_t>(
      std::llround(load / MostLoad(config, ep) * experts.size()));
  for (int64_t i = 0; i < static_cast<int64_t>(experts.size()); ++i) {
    experts[i] = static_cast<int32_t>(
        i < hot ? i % own : own + i % (config.experts - own));
  }
  return Upload<int32_t>(device, {tokens, config.top_k}, experts);
}

// Rows may travel behind computation, to any number of an expert's ranks.
CommunicatorOptions ForAllWays(CommunicatorOptions options) {
  options.experts.chunks = std::max(options.experts.chunks, 2);
  options.experts.moves = Moves::kAdaptive;
  options.experts.choices.clear();
  return options;
}

class Layer {
 public:
  Layer(const TrainingSetup& setup, const Plan& plan, const PlanLayout& layout,
        Device& device, CommunicatorFactory& factory)
      : device_(device),
        grid_(layout.grid),
        communicators_(factory, grid_, ForAllWays(layout.communicators)),
        deduplicates_(layout.communicators.experts.deduplicates),
        config_(*setup.family->experts()),
        width_(setup.family->Shape().hidden),
        dtype_(setup.dtype),
        store_(device, setup.dtype, setup.seed),
        layer_(store_, grid_, "experts", width_, config_) {
    for (const auto& parameter : store_.parameters()) {
      parameter->grad = Tensor::Zeros(device, parameter->value.shape(),
                                      ComputeDType(parameter->dtype));
    }
    const int64_t sharers =
        grid_.size(Axis::kTensor) * grid_.size(Axis::kContext);
    tokens_ = std::max<int64_t>(
        1, setup.family->Shape().tokens * plan.microbatch_size() / sharers);
  }

  // The slowest rank's median of each of the ways, which are measured in turns:
  // of what they take of their turn's median, times the turns' median, so that
  // turns in which the machine is slower for all change no order. Collective.
  std::vector<double> SecondsOf(const std::vector<Way>& ways, double load,
                                int repetitions) {
    std::vector<std::vector<double>> of_turn(ways.size());
    std::vector<double> turns;
    for (int turn = -1; turn < repetitions; ++turn) {
      std::vector<double> taken(ways.size());
      for (size_t i = 0; i < ways.size(); ++i) {
        // No way is always the first.
        const size_t way = (i + turn + 1) % ways.size();
        taken[way] = SecondsOnce(ways[way], load);
      }
      if (turn < 0) continue;
      turns.push_back(Median(taken));
      for (size_t i = 0; i < ways.size(); ++i) {
        of_turn[i].push_back(taken[i] / turns.back());
      }
    }
    const double typical = Median(std::move(turns));
    std::vector<double> medians;
    for (std::vector<double>& of_way : of_turn) {
      medians.push_back(typical * Median(std::move(of_way)));
    }
    return medians;
  }

  int64_t tokens() const { return tokens_; }
  const MoeConfig& config() const { return config_; }
  int64_t width() const { return width_; }

 private:
  double SecondsOnce(const Way& way, double load) {
    ParallelContext parallel(
        device_, grid_, communicators_,
        {.experts = {.moves = way.moves,
                     .node_ranks =
                         way.by_nodes ? communicators_.ExpertNode().size() : 1,
                     .deduplicates = deduplicates_,
                     .chunks = way.chunks,
                     .row_copies = way.row_copies,
                     .sums_by_rank = true}});
    communicators_.world().Barrier("tuned layer");
    const auto start = std::chrono::steady_clock::now();
    Run(parallel, load);
    double taken =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
            .count();
    communicators_.control().Max(std::span(&taken, 1), "tuned layer");
    return taken;
  }

  void Run(ParallelContext& parallel, double load) {
    Tape tape(device_);
    ForwardContext context{tape, parallel};
    const Shape shape = {tokens_, width_};
    const Variable x = tape.Leaf(Tensor::Zeros(device_, shape, dtype_));
    Routing routing;
    routing.weights = tape.Leaf(
        Tensor::Zeros(device_, {tokens_, config_.top_k}, ComputeDType(dtype_)));
    routing.experts =
        RoutesOf(device_, tokens_, config_, grid_.size(Axis::kExpert), load);
    routing.most_of_expert = tokens_ * config_.top_k;
    const Variable outputs[] = {
        layer_.ThroughExperts(context, x, routing, /*beside=*/[] {})};
    tape.Backward(outputs, {Tensor::Zeros(device_, shape, dtype_)},
                  Tape::WeightGradients::kImmediate);
    device_.stream().Synchronize();
  }

  Device& device_;
  const ProcessGrid grid_;
  Communicators communicators_;
  const bool deduplicates_;
  const MoeConfig config_;
  const int64_t width_;
  const DType dtype_;
  ParameterStore store_;
  const MoeLayer layer_;
  int64_t tokens_ = 0;
};

// Ways by their seconds, fastest first: as many as may be the fastest, and one
// more that must be among them if it is near.
std::vector<size_t> FinalistsOf(const std::vector<double>& seconds,
                                size_t last) {
  std::vector<size_t> order(seconds.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return seconds[a] < seconds[b]; });
  std::vector<size_t> finalists;
  for (const size_t way : order) {
    if (seconds[way] > kNear * seconds[order.front()]) break;
    if (finalists.size() < kFinalists || way == last) finalists.push_back(way);
  }
  return finalists;
}

struct MeasuredWays {
  std::vector<double> seconds;
  size_t best = 0;
};

// `last`: what is chosen for the load before, or no way.
MeasuredWays MeasureWays(Layer& layer, const std::vector<Way>& ways,
                         double load, int repetitions, size_t last) {
  MeasuredWays measured;
  measured.seconds = layer.SecondsOf(ways, load, repetitions);
  const std::vector<size_t> finalists = FinalistsOf(measured.seconds, last);
  std::vector<Way> again;
  for (const size_t way : finalists) again.push_back(ways[way]);
  const std::vector<double> seconds =
      layer.SecondsOf(again, load, kFinalRepetitions * repetitions);
  // What the machine was slower or faster the second time, others would have
  // been as well.
  std::vector<double> changes;
  for (size_t i = 0; i < finalists.size(); ++i) {
    changes.push_back(measured.seconds[finalists[i]] / seconds[i]);
  }
  const double change = Median(std::move(changes));
  for (size_t i = 0; i < finalists.size(); ++i) {
    measured.seconds[finalists[i]] = change * seconds[i];
  }
  measured.best = *std::min_element(
      finalists.begin(), finalists.end(), [&](size_t a, size_t b) {
        return measured.seconds[a] < measured.seconds[b];
      });
  if (std::find(finalists.begin(), finalists.end(), last) != finalists.end() &&
      measured.seconds[last] <=
          (1 + kNoise) * measured.seconds[measured.best]) {
    measured.best = last;
  }
  return measured;
}

// Of all loads, each counted alike.
std::string CompareWithOneWay(const std::vector<Way>& ways,
                              const std::vector<MeasuredWays>& loads) {
  double chosen = 0;
  std::vector<double> of_ways(ways.size(), 0);
  for (const MeasuredWays& load : loads) {
    chosen += load.seconds[load.best];
    for (size_t i = 0; i < ways.size(); ++i) of_ways[i] += load.seconds[i];
  }
  const size_t best =
      std::min_element(of_ways.begin(), of_ways.end()) - of_ways.begin();
  return fmt::format(
      "for all loads alike {} is best, and takes {:.3f} times as long as these "
      "choices\n",
      ways[best].name, of_ways[best] / chosen);
}

}  // namespace

absl::StatusOr<TunedExperts> TuneExperts(const TrainingSetup& setup,
                                         const Plan& plan, Device& device,
                                         CommunicatorFactory& factory,
                                         const TuneOptions& options) {
  if (setup.family->experts() == nullptr) {
    return InvalidArgument("model: found none with experts, expected one");
  }
  if (plan.grid().ep() <= 1) {
    return InvalidArgument(
        "plan.grid.ep: found 1, expected more: nothing moves between ranks");
  }
  ASSIGN_OR_RETURN(const PlanLayout layout,
                   LayOutPlan(plan, *setup.family, factory.world_rank()));
  const auto ep = static_cast<int>(plan.grid().ep());
  Layer layer(setup, plan, layout, device, factory);
  const std::vector<Way> ways = WaysOf(layout.communicators.experts, ep);
  TunedExperts tuned;
  tuned.experts = plan.experts();
  tuned.experts.clear_choices();
  tuned.experts.clear_row_copies();
  tuned.experts.set_move(Plan::Experts::ADAPTIVE);
  Plan::Experts::TunedFor& on = *tuned.experts.mutable_tuned_for();
  on = MeasureTunedCluster(options.place, factory);
  on.set_ep(plan.grid().ep());
  on.set_experts(static_cast<uint32_t>(layer.config().experts));
  on.set_expert_hidden(static_cast<uint32_t>(layer.config().expert_hidden));
  tuned.report = fmt::format(
      "{} tokens of width {} on a rank, {} of {} experts of {} channels, ep "
      "{}\n"
      "{:>8}",
      layer.tokens(), layer.width(), layer.config().top_k,
      layer.config().experts, layer.config().expert_hidden, ep, "load");
  for (const Way& way : ways) {
    tuned.report += fmt::format("{:>{}}", way.name, way.column());
  }
  tuned.report += "\n";
  size_t last = ways.size();
  std::vector<MeasuredWays> loads;
  for (const double load : LoadsUpTo(MostLoad(layer.config(), ep))) {
    loads.push_back(MeasureWays(layer, ways, load, options.repetitions, last));
    RETURN_IF_ERROR(device.status());
    tuned.report += fmt::format("{:>8.2f}", load);
    for (size_t i = 0; i < ways.size(); ++i) {
      tuned.report += fmt::format("{:>{}.3f} ms", 1e3 * loads.back().seconds[i],
                                  ways[i].column() - 3);
    }
    const size_t best = loads.back().best;
    tuned.report += fmt::format("  {}\n", ways[best].name);
    if (best == last) {
      Plan::Experts::Choice& choice =
          *tuned.experts.mutable_choices(tuned.experts.choices_size() - 1);
      choice.set_max_load(load);
      continue;
    }
    Plan::Experts::Choice& choice = *tuned.experts.add_choices();
    choice.set_max_load(load);
    choice.set_move(ways[best].moves == Moves::kWeights ? Plan::Experts::WEIGHTS
                                                        : Plan::Experts::ROWS);
    choice.set_by_nodes(ways[best].by_nodes);
    choice.set_chunks(ways[best].chunks);
    if (ways[best].row_copies < layout.communicators.experts.slices) {
      choice.set_row_copies(ways[best].row_copies);
    }
    last = best;
  }
  tuned.report += CompareWithOneWay(ways, loads);
  return tuned;
}

}  // namespace trireme
