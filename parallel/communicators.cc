#include "parallel/communicators.h"

#include <array>
#include <numeric>
#include <string>
#include <string_view>

#include "fmt/format.h"
#include "runtime/comm/collective.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

constexpr std::array kGradientAxes = {Axis::kTensor, Axis::kContext,
                                      Axis::kData};

std::string NameOf(std::string_view purpose, std::span<const int> ranks) {
  return fmt::format("{} [{}]", purpose, RanksText(ranks));
}

void Add(std::map<std::string, CommunicationStatistics>& sums,
         const Communicator& communicator) {
  // The purpose is the name up to the ranks.
  const std::string_view name = communicator.name();
  CommunicationStatistics& sum =
      sums[std::string(name.substr(0, name.find(" [")))];
  const CommunicationStatistics statistics = communicator.Statistics();
  sum.calls += statistics.calls;
  sum.sent_bytes += statistics.sent_bytes;
  sum.exposed_seconds += statistics.exposed_seconds;
}

}  // namespace

Communicators::Communicators(CommunicatorFactory& factory,
                             const ProcessGrid& grid,
                             const CommunicatorOptions& options) {
  CHECK_EQ(factory.world_rank(), grid.world_rank());
  CHECK_EQ(factory.world_size(), grid.num_ranks());
  const Creator create = [&](std::span<const int> ranks,
                             std::string_view purpose, Progress progress) {
    return factory.Create(ranks, NameOf(purpose, ranks), progress);
  };

  // The order of creation is one order for all ranks: a rank that skips the
  // groups it is not in cannot wait in a circle with others.
  // In the job's own order, which no placement changes: its rank 0 leads.
  std::vector<int> everyone(grid.num_ranks());
  std::iota(everyone.begin(), everyone.end(), 0);
  world_ = create(everyone, "world", Progress::kWhileWaiting);
  for (Axis axis : kAllAxes) {
    const std::vector<int> group = grid.Group(std::span(&axis, 1));
    const int at = static_cast<int>(axis);
    // Activations are waited for at once: latency counts.
    axes_[at] = create(group, fmt::format("{} activations", AxisName(axis)),
                       Progress::kWhileWaiting);
  }
  constexpr Axis kTensor = Axis::kTensor;
  tensor_backward_ = create(grid.Group(std::span(&kTensor, 1)), "tp backward",
                            Progress::kBackground);
  CreateGradientGroups(create, grid, options.shard_group);
  constexpr Axis kContext = Axis::kContext;
  const std::vector<int> context = grid.Group(std::span(&kContext, 1));
  const int cp = grid.size(kContext);
  CHECK_EQ(cp % options.ulysses, 0);
  const int u = grid.coordinate(kContext) % options.ulysses;
  const int r = grid.coordinate(kContext) / options.ulysses;
  std::vector<int> exchange(context.begin() + r * options.ulysses,
                            context.begin() + (r + 1) * options.ulysses);
  std::vector<int> ring;
  for (int i = u; i < cp; i += options.ulysses) ring.push_back(context[i]);
  context_ulysses_ = create(exchange, "cp heads", Progress::kWhileWaiting);
  // Keys and values travel behind the attention to those before them.
  context_ring_ = create(ring, "cp ring", Progress::kBackground);
  constexpr std::array kModelAxes = {Axis::kTensor, Axis::kContext,
                                     Axis::kExpert, Axis::kPipeline};
  model_ = create(grid.Group(kModelAxes), "model", Progress::kWhileWaiting);

  CreateChannels(create, grid, options);
  if (factory.imagined())
    alone_ = std::make_unique<SingleCommunicator>("alone");
  control_ = std::make_unique<Control>(alone_ ? *alone_ : *world_);
  model_shards_control_ =
      std::make_unique<Control>(alone_ ? *alone_ : *model_shards_);
}

void Communicators::CreateChannels(const Creator& create,
                                   const ProcessGrid& grid,
                                   const CommunicatorOptions& options) {
  if (options.channels.has_value()) {
    const int own = grid.logical_rank();
    for (const auto& [sender, receiver] : *options.channels) {
      if (own != sender && own != receiver) continue;
      const std::array ranks = {grid.WorldRankOf(sender),
                                grid.WorldRankOf(receiver)};
      auto& to_peer = own == sender ? pipeline_send_ : pipeline_receive_;
      to_peer[own == sender ? receiver : sender] =
          create(ranks, "pp messages", Progress::kBackground);
    }
    return;
  }
  // A stage computes on while what it sent is on its way.
  const int stages = grid.size(Axis::kPipeline);
  const int stage = grid.coordinate(Axis::kPipeline);
  const auto connect = [&](int sender, int receiver) {
    if (stage != sender && stage != receiver) return;
    const std::array ranks = {grid.Neighbour(Axis::kPipeline, sender),
                              grid.Neighbour(Axis::kPipeline, receiver)};
    auto& to_peer = stage == sender ? pipeline_send_ : pipeline_receive_;
    to_peer[stage == sender ? receiver : sender] =
        create(ranks, "pp messages", Progress::kBackground);
  };
  // Of two stages, the pair (1, 0) is the pair (0, 1).
  const int pairs = stages > 2 ? stages : stages - 1;
  for (int first = 0; first < pairs; ++first) {
    const int second = (first + 1) % stages;
    connect(first, second);
    connect(second, first);
  }
}

size_t Communicators::SetIndex(const AxisSet& axes) {
  size_t index = 0;
  for (size_t bit = 0; bit < kGradientAxes.size(); ++bit) {
    if (axes.contains(kGradientAxes[bit])) index |= size_t{1} << bit;
  }
  return index;
}

void Communicators::CreateGradientGroups(const Creator& create,
                                         const ProcessGrid& grid,
                                         int shard_group) {
  CHECK_EQ(grid.size(Axis::kData) % shard_group, 0);
  // The group over `axes`, of which only the ranks stay whose dp coordinate
  // agrees with this rank's in `key`.
  const auto filtered = [&](const std::vector<Axis>& axes, auto key) {
    std::vector<int> ranks;
    for (const int rank : grid.Group(axes)) {
      const GridPoint point = grid.PointOf(grid.LogicalRankOfWorldRank(rank));
      if (key(point[Axis::kData]) == key(grid.coordinate(Axis::kData))) {
        ranks.push_back(rank);
      }
    }
    return ranks;
  };
  const auto group_of = [&](int dp) { return dp / shard_group; };
  const auto place_in_group = [&](int dp) { return dp % shard_group; };
  // They go on behind backward and forward.
  for (size_t index = 0; index < gradients_.size(); ++index) {
    std::vector<Axis> axes;
    std::vector<std::string_view> names;
    for (size_t bit = 0; bit < kGradientAxes.size(); ++bit) {
      if ((index >> bit & 1) == 0) continue;
      axes.push_back(kGradientAxes[bit]);
      names.push_back(AxisName(kGradientAxes[bit]));
    }
    const std::string name = fmt::format("{}", fmt::join(names, "+"));
    gradients_[index] =
        create(grid.Group(axes), name + " gradients", Progress::kBackground);
    if (index >= replicas_.size()) continue;
    axes.push_back(Axis::kData);
    replicas_[index] =
        create(filtered(axes, place_in_group), name + " replica gradients",
               Progress::kBackground);
  }
  const std::vector<int> shards = filtered({Axis::kData}, group_of);
  shard_gradients_ =
      create(shards, "dp shard gradients", Progress::kBackground);
  shard_parameters_ = create(shards, "dp parameters", Progress::kBackground);
  // Where stages have unlike numbers of ranks no groups hold the model once
  // each: everyone is in one, and the first replica of each stage counts.
  const std::vector<Axis> all(kAllAxes.begin(), kAllAxes.end());
  model_shards_ =
      create(grid.stages_alike() ? filtered(all, group_of) : grid.Group(all),
             "model shards", Progress::kWhileWaiting);
}

double Communicators::ExposedParameterSeconds() const {
  double seconds = shard_gradients_->Statistics().exposed_seconds +
                   shard_parameters_->Statistics().exposed_seconds;
  for (const auto& communicator : gradients_) {
    seconds += communicator->Statistics().exposed_seconds;
  }
  for (const auto& communicator : replicas_) {
    seconds += communicator->Statistics().exposed_seconds;
  }
  return seconds;
}

std::map<std::string, CommunicationStatistics> Communicators::Statistics()
    const {
  std::map<std::string, CommunicationStatistics> sums;
  for (const auto& communicator : axes_) Add(sums, *communicator);
  Add(sums, *tensor_backward_);
  for (const auto& communicator : gradients_) Add(sums, *communicator);
  for (const auto& communicator : replicas_) Add(sums, *communicator);
  Add(sums, *shard_gradients_);
  Add(sums, *shard_parameters_);
  Add(sums, *model_shards_);
  Add(sums, *context_ulysses_);
  Add(sums, *context_ring_);
  Add(sums, *model_);
  Add(sums, *world_);
  for (const auto& [peer, communicator] : pipeline_send_) {
    Add(sums, *communicator);
  }
  for (const auto& [peer, communicator] : pipeline_receive_) {
    Add(sums, *communicator);
  }
  return sums;
}

}  // namespace trireme
