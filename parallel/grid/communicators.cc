#include "parallel/grid/communicators.h"

#include <algorithm>
#include <numeric>

#include "fmt/format.h"
#include "runtime/comm/collective.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

using Keep = GroupSpec::Cut::Keep;

constexpr std::array kGradientAxes = {Axis::kTensor, Axis::kContext,
                                      Axis::kData};

}  // namespace

std::vector<int> RanksOf(const GroupSpec& spec, const ProcessGrid& grid) {
  std::vector<int> ranks = grid.Group(spec.axes);
  if (!spec.cut.has_value()) return ranks;
  const auto& [axis, size, keep] = *spec.cut;
  CHECK_EQ(grid.size(axis) % size, 0) << spec.purpose;
  const auto part = [&, size = size, keep = keep](int coordinate) {
    return keep == Keep::kRun ? coordinate / size : coordinate % size;
  };
  const int own = part(grid.coordinate(axis));
  std::erase_if(ranks, [&, axis = axis](int rank) {
    const GridPoint point = grid.PointOf(grid.LogicalRankOfWorldRank(rank));
    return part(point[axis]) != own;
  });
  return ranks;
}

Communicators::Communicators(CommunicatorFactory& factory,
                             const ProcessGrid& grid,
                             const CommunicatorOptions& options) {
  CHECK_EQ(factory.world_rank(), grid.world_rank());
  CHECK_EQ(factory.world_size(), grid.num_ranks());
  // By world rank: the job's rank 0 leads, whatever the placement.
  std::vector<int> everyone(grid.num_ranks());
  std::iota(everyone.begin(), everyone.end(), 0);
  world_ = Create(factory, everyone, "world", Cause::kControl,
                  Progress::kWhileWaiting);
  CreateGroups(factory, grid, options);
  CreateChannels(factory, grid, options);
  for (const Member& member : members_) {
    member.communicator->UseReduceOrder(options.reduce_order);
  }
  if (factory.imagined()) {
    alone_ = std::make_unique<SingleCommunicator>("alone");
  }
  control_ = std::make_unique<Control>(alone_ ? *alone_ : *world_);
  model_shards_control_ =
      std::make_unique<Control>(alone_ ? *alone_ : *model_shards_);
}

Communicator* Communicators::Create(CommunicatorFactory& factory,
                                    std::span<const int> ranks,
                                    std::string_view purpose, Cause cause,
                                    Progress progress) {
  members_.push_back(
      {factory.Create(ranks, fmt::format("{} [{}]", purpose, RanksText(ranks)),
                      progress),
       cause});
  return members_.back().communicator.get();
}

void Communicators::CreateGroups(CommunicatorFactory& factory,
                                 const ProcessGrid& grid,
                                 const CommunicatorOptions& options) {
  const auto make = [&](const GroupSpec& spec) {
    return Create(factory, RanksOf(spec, grid), spec.purpose, spec.cause,
                  spec.progress);
  };
  // Activations are waited for at once: latency counts.
  tensor_ = make({.purpose = "tp activations",
                  .axes = {Axis::kTensor},
                  .cause = Cause::kTensor});
  tensor_backward_ = make({.purpose = "tp backward",
                           .axes = {Axis::kTensor},
                           .cause = Cause::kTensor,
                           .progress = Progress::kBackground});
  context_ = make({.purpose = "cp activations",
                   .axes = {Axis::kContext},
                   .cause = Cause::kContext});
  const auto context_part = [&](Keep keep) {
    return GroupSpec::Cut{Axis::kContext, options.ulysses, keep};
  };
  context_ulysses_ = make({.purpose = "cp heads",
                           .axes = {Axis::kContext},
                           .cut = context_part(Keep::kRun),
                           .cause = Cause::kContext});
  // Keys and values travel behind the attention to those before them.
  context_ring_ = make({.purpose = "cp ring",
                        .axes = {Axis::kContext},
                        .cut = context_part(Keep::kPlace),
                        .cause = Cause::kContext,
                        .progress = Progress::kBackground});

  // What moves gradients and parameters goes on behind backward and forward.
  const auto data_part = [&](Keep keep) {
    return GroupSpec::Cut{Axis::kData, options.shard_group, keep};
  };
  // Sets of axes whose groups have the same ranks share one: a set asks for no
  // more than those that are more than one rank long.
  std::map<std::vector<int>, Communicator*> of_sums, of_replicas;
  for (size_t index = 0; index < gradients_.size(); ++index) {
    std::vector<Axis> axes;
    std::vector<std::string_view> names;
    for (size_t bit = 0; bit < kGradientAxes.size(); ++bit) {
      if ((index >> bit & 1) == 0) continue;
      axes.push_back(kGradientAxes[bit]);
      names.push_back(AxisName(kGradientAxes[bit]));
    }
    const std::string name = fmt::format("{}", fmt::join(names, "+"));
    const auto shared = [&](auto& made, const GroupSpec& spec) {
      Communicator*& communicator = made[RanksOf(spec, grid)];
      if (communicator == nullptr) communicator = make(spec);
      return communicator;
    };
    gradients_[index] = shared(of_sums, {.purpose = name + " gradients",
                                         .axes = axes,
                                         .cause = Cause::kGradients,
                                         .progress = Progress::kBackground});
    if (index >= replicas_.size()) continue;
    axes.push_back(Axis::kData);
    replicas_[index] =
        shared(of_replicas, {.purpose = name + " replica gradients",
                             .axes = axes,
                             .cut = data_part(Keep::kPlace),
                             .cause = Cause::kGradients,
                             .progress = Progress::kBackground});
  }
  shard_gradients_ = make({.purpose = "dp shard gradients",
                           .axes = {Axis::kData},
                           .cut = data_part(Keep::kRun),
                           .cause = Cause::kGradients,
                           .progress = Progress::kBackground});
  shard_parameters_ = make({.purpose = "dp parameters",
                            .axes = {Axis::kData},
                            .cut = data_part(Keep::kRun),
                            .cause = Cause::kParameters,
                            .progress = Progress::kBackground});
  const Progress rows_progress = options.experts.overlaps()
                                     ? Progress::kBackground
                                     : Progress::kWhileWaiting;
  if (grid.size(Axis::kExpert) > 1) {
    experts_ = Create(factory, grid.ExpertGroup(), "ep tokens", Cause::kExperts,
                      rows_progress);
    expert_gradients_ =
        Create(factory, grid.ExpertReplicas(), "expert gradients",
               Cause::kGradients, Progress::kBackground);
  }
  const int of_node = options.experts.node_ranks;
  if (of_node > 1 && of_node < grid.size(Axis::kExpert)) {
    CHECK_EQ(grid.size(Axis::kExpert) % of_node, 0);
    const std::vector<int> group = grid.ExpertGroup();
    const int own = grid.coordinate(Axis::kExpert);
    std::vector<int> node, across;
    for (int i = 0; i < static_cast<int>(group.size()); ++i) {
      if (i / of_node == own / of_node) node.push_back(group[i]);
      if (i % of_node == own % of_node) across.push_back(group[i]);
    }
    expert_node_ = Create(factory, node, "ep tokens in a node", Cause::kExperts,
                          rows_progress);
    experts_across_ = Create(factory, across, "ep tokens across nodes",
                             Cause::kExperts, rows_progress);
  }
  for (const int sharers : options.experts.gathered_slices()) {
    CHECK_EQ(grid.size(Axis::kExpert) % sharers, 0);
    const std::vector<int> group = grid.ExpertGroup();
    const auto first =
        group.begin() + grid.coordinate(Axis::kExpert) / sharers * sharers;
    const std::vector<int> run(first, first + sharers);
    expert_slices_[sharers] =
        Create(factory, run, fmt::format("ep slices of {}", sharers),
               Cause::kExperts, rows_progress);
  }
  // Where stages have unlike numbers of ranks, or experts lie across dp, no
  // groups hold the model once each: everyone is in one, and the first copy of
  // each part counts.
  holds_replicas_ = !grid.stages_alike() || grid.size(Axis::kExpert) > 1;
  GroupSpec model_shards = {.purpose = "model shards",
                            .axes = {kGridAxes.begin(), kGridAxes.end()}};
  if (!holds_replicas_) model_shards.cut = data_part(Keep::kRun);
  model_shards_ = make(model_shards);
}

void Communicators::CreateChannels(CommunicatorFactory& factory,
                                   const ProcessGrid& grid,
                                   const CommunicatorOptions& options) {
  // From `sender` to `receiver`, which this rank's `own` may be one of. A rank
  // computes on while what it sent is on its way.
  const auto connect = [&](int own, int sender, int receiver, auto rank_of) {
    if (own != sender && own != receiver) return;
    const std::array ranks = {rank_of(sender), rank_of(receiver)};
    auto& to_peer = own == sender ? pipeline_send_ : pipeline_receive_;
    to_peer[own == sender ? receiver : sender] = Create(
        factory, ranks, "pp messages", Cause::kPipeline, Progress::kBackground);
  };
  if (options.channels.has_value()) {
    for (const auto& [sender, receiver] : *options.channels) {
      connect(grid.logical_rank(), sender, receiver,
              [&](int rank) { return grid.WorldRankOf(rank); });
    }
    return;
  }
  const int stages = grid.size(Axis::kPipeline);
  const int stage = grid.coordinate(Axis::kPipeline);
  const auto rank_of = [&](int of) {
    return grid.Neighbour(Axis::kPipeline, of);
  };
  // Of two stages, the pair (1, 0) is the pair (0, 1).
  const int pairs = stages > 2 ? stages : stages - 1;
  for (int first = 0; first < pairs; ++first) {
    const int second = (first + 1) % stages;
    connect(stage, first, second, rank_of);
    connect(stage, second, first, rank_of);
  }
}

Communicator& Communicators::ForAxis(Axis axis) {
  CHECK(axis == Axis::kTensor || axis == Axis::kContext)
      << "no group moves activations over " << axis;
  return axis == Axis::kTensor ? *tensor_ : *context_;
}

Communicator& Communicators::ExpertGroup() const {
  CHECK(experts_ != nullptr) << "ep is 1";
  return *experts_;
}

Communicator& Communicators::ExpertGradients() const {
  CHECK(expert_gradients_ != nullptr) << "ep is 1";
  return *expert_gradients_;
}

Communicator& Communicators::ExpertNode() const {
  CHECK(expert_node_ != nullptr) << "ranks of experts lie on no nodes";
  return *expert_node_;
}

Communicator& Communicators::ExpertsAcrossNodes() const {
  CHECK(experts_across_ != nullptr) << "ranks of experts lie on no nodes";
  return *experts_across_;
}

Communicator& Communicators::ExpertSlices(int ranks) const {
  const auto found = expert_slices_.find(ranks);
  CHECK(found != expert_slices_.end())
      << "no slices of " << ranks << " ranks come together";
  return *found->second;
}

Communicator& Communicators::ForReplicas(const AxisSet& axes) {
  const size_t index = SetIndex(axes);
  CHECK_LT(index, replicas_.size()) << "replicas over dp are all of dp";
  return *replicas_[index];
}

size_t Communicators::SetIndex(const AxisSet& axes) {
  size_t index = 0;
  AxisSet left = axes;
  for (size_t bit = 0; bit < kGradientAxes.size(); ++bit) {
    if (axes.contains(kGradientAxes[bit])) index |= size_t{1} << bit;
    left.erase(kGradientAxes[bit]);
  }
  for (const Axis axis : kAllAxes) {
    CHECK(!left.contains(axis)) << "no group sums gradients over " << axis;
  }
  return index;
}

CommunicationStatistics Communicators::Statistics() const {
  CommunicationStatistics sum;
  for (const Member& member : members_) {
    sum += member.communicator->Statistics();
  }
  return sum;
}

CommunicationStatistics Communicators::Statistics(Cause cause) const {
  CommunicationStatistics sum;
  for (const Member& member : members_) {
    if (member.cause == cause) sum += member.communicator->Statistics();
  }
  return sum;
}

double Communicators::ExposedParameterSeconds() const {
  return Statistics(Cause::kGradients).exposed_seconds +
         Statistics(Cause::kParameters).exposed_seconds;
}

}  // namespace trireme
