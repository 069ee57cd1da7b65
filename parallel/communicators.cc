#include "parallel/communicators.h"

#include <initializer_list>
#include <numeric>
#include <string>
#include <string_view>

#include "fmt/format.h"
#include "runtime/comm/collective.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

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
                             const ProcessGrid& grid, int ulysses) {
  CHECK_EQ(factory.world_rank(), grid.world_rank());
  CHECK_EQ(factory.world_size(), grid.num_ranks());
  const auto create = [&](std::span<const int> ranks, std::string_view purpose,
                          Progress progress) {
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
    // Activations are waited for at once or soon: latency counts.
    axes_[at] = create(group, fmt::format("{} activations", AxisName(axis)),
                       Progress::kWhileWaiting);
    // Gradients must go on behind backward.
    gradients_[at] = create(group, fmt::format("{} gradients", AxisName(axis)),
                            Progress::kBackground);
  }
  constexpr Axis kContext = Axis::kContext;
  const std::vector<int> context = grid.Group(std::span(&kContext, 1));
  const int cp = grid.size(kContext);
  CHECK_EQ(cp % ulysses, 0);
  const int u = grid.coordinate(kContext) % ulysses;
  const int r = grid.coordinate(kContext) / ulysses;
  std::vector<int> exchange(context.begin() + r * ulysses,
                            context.begin() + (r + 1) * ulysses);
  std::vector<int> ring;
  for (int i = u; i < cp; i += ulysses) ring.push_back(context[i]);
  context_ulysses_ = create(exchange, "cp heads", Progress::kWhileWaiting);
  // Keys and values travel behind the attention to those before them.
  context_ring_ = create(ring, "cp ring", Progress::kBackground);
  constexpr std::array kModelAxes = {Axis::kTensor, Axis::kContext,
                                     Axis::kExpert, Axis::kPipeline};
  model_ = create(grid.Group(kModelAxes), "model", Progress::kWhileWaiting);

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

std::map<std::string, CommunicationStatistics> Communicators::Statistics()
    const {
  std::map<std::string, CommunicationStatistics> sums;
  for (const auto& communicator : axes_) Add(sums, *communicator);
  for (const auto& communicator : gradients_) Add(sums, *communicator);
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
