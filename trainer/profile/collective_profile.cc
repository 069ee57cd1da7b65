#include "trainer/profile/collective_profile.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <set>

#include "fmt/format.h"
#include "runtime/comm/control.h"
#include "trainer/profile/profile_statistics.h"

namespace trireme {
namespace {

std::set<int> PowersOfTwoAnd(int most) {
  std::set<int> sizes = {most};
  for (int size = 1; size <= most; size *= 2) sizes.insert(size);
  return sizes;
}

// One operation of a kind, as a rank of a group takes part in it.
class ProfiledCollective {
 public:
  // `bytes`: about, in whole slices.
  ProfiledCollective(CollectiveKind kind, int64_t bytes, Device& device,
                     Communicator& group)
      : kind_(kind), group_(group) {
    const int64_t slice = std::max<int64_t>(1, bytes / 4 / group.size());
    whole_ = Buffer(device, slice * group.size());
    part_ =
        Buffer(device, kind == CollectiveKind::kAllToAll ? slice * group.size()
                                                         : slice);
  }

  int64_t bytes() const { return whole_.bytes(); }

  void Run() const {
    switch (kind_) {
      case CollectiveKind::kAllReduce:
        return group_.AllReduce(whole_, ReduceOp::kSum, "profile").Wait();
      case CollectiveKind::kReduceScatter:
        return group_.ReduceScatter(whole_, part_, "profile").Wait();
      case CollectiveKind::kAllGather:
        return group_.AllGather(part_, whole_, "profile").Wait();
      case CollectiveKind::kAllToAll:
        return group_.AllToAll(whole_, part_, "profile").Wait();
    }
  }

 private:
  static Tensor Buffer(Device& device, int64_t elements) {
    return Tensor::Zeros(device, {elements}, DType::kFloat32,
                         MemoryCategory::kCommunication, "profile");
  }

  const CollectiveKind kind_;
  Communicator& group_;
  Tensor whole_, part_;
};

// How often to repeat an operation; the same on all ranks of its group. Runs it
// once.
int Repetitions(const CollectiveProfileOptions& options,
                const ProfiledCollective& operation, Stream& stream,
                Communicator& group) {
  double once_s = SecondsOf(stream, [&] { operation.Run(); });
  Control(group).Max(std::span(&once_s, 1), "profile");
  return RepetitionsWithin(options.most_s, once_s, options.repetitions);
}

struct Timing {
  double bytes = 0;
  double median_s = 0;
  double spread = 0;
};

CollectiveMeasurement FittedTo(const Timing& small, const Timing& large) {
  // A machine may be so noisy that the small one takes longer.
  const double moving =
      std::max(large.median_s - small.median_s, large.median_s / 100);
  CollectiveMeasurement fitted;
  fitted.bytes_per_s = (large.bytes - small.bytes) / moving;
  fitted.latency_s =
      std::max(0.0, small.median_s - small.bytes / fitted.bytes_per_s);
  fitted.spread = large.spread;
  return fitted;
}

}  // namespace

std::vector<GroupShape> GroupShapes(std::span<const int> counts) {
  std::vector<GroupShape> shapes;
  const int smallest = *std::min_element(counts.begin(), counts.end());
  for (const int nodes : PowersOfTwoAnd(static_cast<int>(counts.size()))) {
    for (const int ranks : PowersOfTwoAnd(smallest)) {
      if (nodes * ranks > 1) shapes.push_back({nodes, ranks});
    }
  }
  return shapes;
}

std::vector<std::vector<int>> GroupsOf(const GroupShape& shape,
                                       std::span<const int> counts) {
  std::vector<int> first(counts.size(), 0);
  std::partial_sum(counts.begin(), counts.end() - 1, first.begin() + 1);
  std::vector<std::vector<int>> groups;
  const auto nodes = static_cast<size_t>(shape.nodes);
  for (size_t node = 0; node + nodes <= counts.size(); node += nodes) {
    const int room =
        *std::min_element(counts.begin() + node, counts.begin() + node + nodes);
    for (int place = 0; place + shape.ranks_per_node <= room;
         place += shape.ranks_per_node) {
      std::vector<int>& group = groups.emplace_back();
      for (size_t member = node; member < node + nodes; ++member) {
        for (int i = 0; i < shape.ranks_per_node; ++i) {
          group.push_back(first[member] + place + i);
        }
      }
    }
  }
  return groups;
}

std::vector<CollectiveMeasurement> MeasureCollectives(
    const CollectiveProfileOptions& options, Device& device,
    CommunicatorFactory& factory, Communicator& world,
    std::span<const int> counts) {
  const int rank = factory.world_rank();
  std::vector<CollectiveMeasurement> measured;
  for (const GroupShape& shape : GroupShapes(counts)) {
    const std::vector<std::vector<int>> groups = GroupsOf(shape, counts);
    std::unique_ptr<Communicator> own;
    for (const std::vector<int>& group : groups) {
      if (std::find(group.begin(), group.end(), rank) == group.end()) continue;
      own = factory.Create(group,
                           fmt::format("profile of {} x {} [{}]", shape.nodes,
                                       shape.ranks_per_node, group.front()));
    }
    for (const CollectiveKind kind : kCollectiveKinds) {
      const auto time = [&](int64_t bytes) -> Timing {
        world.Barrier("profile collective");
        if (own == nullptr) return {};
        const ProfiledCollective operation(kind, bytes, device, *own);
        const int repetitions =
            Repetitions(options, operation, device.stream(), *own);
        const std::vector<double> times =
            TimesOf(repetitions, device.stream(), [&] { operation.Run(); });
        return {static_cast<double>(operation.bytes()), Median(times),
                Spread(times)};
      };
      const Timing small = time(options.small_bytes);
      const Timing large = time(options.large_bytes);
      const std::vector<std::vector<double>> rows =
          GatherRows(world, {small.bytes, small.median_s, large.bytes,
                             large.median_s, large.spread});
      if (rank != 0) continue;
      // A group is as slow as its slowest rank.
      const std::vector<int>* slowest = nullptr;
      Timing slowest_small, slowest_large;
      for (const std::vector<int>& group : groups) {
        for (const int member : group) {
          const std::vector<double>& row = rows[member];
          if (slowest != nullptr && row[3] <= slowest_large.median_s) continue;
          slowest = &group;
          slowest_small = {row[0], row[1], 0};
          slowest_large = {row[2], row[3], row[4]};
        }
      }
      if (slowest == nullptr) continue;
      CollectiveMeasurement& entry =
          measured.emplace_back(FittedTo(slowest_small, slowest_large));
      entry.kind = kind;
      entry.shape = shape;
      entry.ranks = *slowest;
    }
  }
  return measured;
}

}  // namespace trireme
