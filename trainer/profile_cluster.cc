#include "trainer/profile_cluster.h"

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <utility>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/pointwise.h"
#include "scheduler/planner/cluster.h"
#include "scheduler/planner/collectives.h"
#include "scheduler/planner/measured_times.h"
#include "trainer/model_shape_of.h"
#include "trainer/piece_times.h"
#include "trainer/profile_statistics.h"

namespace trireme {
namespace {

constexpr int64_t kNameBytes = 64;
constexpr int64_t kMatrixSide = 1024;
constexpr int64_t kElementwiseBytes = 64 << 20;
constexpr int64_t kAllReduceBytes = 4 << 20;
// Whose times give an all-reduce's latency and rate inside a node.
constexpr int64_t kSmallAllReduceBytes = 4 << 10;
constexpr int64_t kLargeAllReduceBytes = 1 << 20;

double MedianSeconds(int repetitions, const std::function<void()>& run) {
  return Median(TimesOf(repetitions, run));
}

double GemmRate(Device& device, DType dtype, int repetitions) {
  const Shape shape = {kMatrixSide, kMatrixSide};
  const Tensor a = Tensor::Zeros(device, shape, dtype);
  const Tensor b = Tensor::Zeros(device, shape, dtype);
  const double side = kMatrixSide;
  return 2 * side * side * side /
         MedianSeconds(repetitions, [&] { MatMul(a, b); });
}

// Two reads and a write.
double ElementwiseRate(Device& device, int repetitions) {
  const Shape shape = {kElementwiseBytes / 4};
  const Tensor x = Tensor::Zeros(device, shape, DType::kFloat32);
  const Tensor y = Tensor::Zeros(device, shape, DType::kFloat32);
  return 3.0 * kElementwiseBytes /
         MedianSeconds(repetitions, [&] { AddInPlace(x, y); });
}

std::vector<std::string> GatherHosts(Device& device, Communicator& world,
                                     const std::string& host) {
  std::vector<uint8_t> own(kNameBytes, 0);
  std::copy_n(host.begin(), std::min<size_t>(host.size(), kNameBytes - 1),
              own.begin());
  const Tensor input = Tensor::FromValues<uint8_t>(
      device, {1, kNameBytes}, own, MemoryCategory::kCommunication, "hosts");
  const Tensor all =
      Tensor::Empty(device, {world.size(), kNameBytes}, DType::kUint8,
                    MemoryCategory::kCommunication, "hosts");
  world.AllGather(input, all, "hosts").Wait();
  const std::vector<uint8_t> flat = all.ToVector<uint8_t>();
  std::vector<std::string> hosts;
  hosts.reserve(world.size());
  for (int rank = 0; rank < world.size(); ++rank) {
    const auto begin = flat.begin() + rank * kNameBytes;
    hosts.emplace_back(begin, std::find(begin, begin + kNameBytes, 0));
  }
  return hosts;
}

Cluster::Link LinkOf(const LinkMeasurement& measured) {
  Cluster::Link link;
  link.set_latency_s(measured.latency_s);
  link.set_bytes_per_s(measured.bytes_per_s);
  if (measured.shared_bytes_per_s > 0) {
    link.set_shared_bytes_per_s(measured.shared_bytes_per_s);
  }
  link.set_spread(measured.spread);
  return link;
}

// Medians over a node's groups of the same size.
struct GroupTimes {
  double small_s = 0;
  double large_s = 0;
};

// [node, members]: all-reduces in groups of 2, 4, 8, ... ranks of a node, and
// of all of them, everywhere at once.
std::map<std::pair<int, int>, GroupTimes> TimeCollectivesInNodes(
    const ProfileOptions& options, Device& device, CommunicatorFactory& factory,
    Communicator& world, std::span<const int> node_of) {
  const int rank = factory.world_rank();
  const auto count_of = [&](int node) {
    return static_cast<int>(std::count(node_of.begin(), node_of.end(), node));
  };
  std::set<int> sizes;
  for (int node = 0; node <= node_of.back(); ++node) {
    const int count = count_of(node);
    for (int size = 2; size <= count; size *= 2) sizes.insert(size);
    if (count > 1) sizes.insert(count);
  }
  const auto first = static_cast<int>(
      std::find(node_of.begin(), node_of.end(), node_of[rank]) -
      node_of.begin());
  const int own_count = count_of(node_of[rank]);
  std::map<std::pair<int, int>, GroupTimes> times;
  for (const int size : sizes) {
    const int group = (rank - first) / size;
    std::vector<double> own = {0, 0};
    std::unique_ptr<Communicator> communicator;
    if ((group + 1) * size <= own_count) {
      std::vector<int> members(size);
      std::iota(members.begin(), members.end(), first + group * size);
      communicator = factory.Create(
          members, fmt::format("profile of {} [{}]", size, members[0]));
    }
    const auto median = [&](int64_t bytes) {
      // All groups send the same size at the same time.
      world.Barrier("profile");
      if (communicator == nullptr) return 0.0;
      const Tensor data =
          Tensor::Zeros(device, {bytes / 4}, DType::kFloat32,
                        MemoryCategory::kCommunication, "profile");
      return MedianSeconds(options.repetitions, [&] {
        communicator->AllReduce(data, ReduceOp::kSum, "profile").Wait();
      });
    };
    own[0] = median(kSmallAllReduceBytes);
    own[1] = median(kLargeAllReduceBytes);
    const std::vector<std::vector<double>> rows =
        GatherRows(device, world, own);
    for (int node = 0; node <= node_of.back(); ++node) {
      std::vector<double> small, large;
      for (size_t i = 0; i < rows.size(); ++i) {
        if (node_of[i] != node || rows[i][0] <= 0) continue;
        small.push_back(rows[i][0]);
        large.push_back(rows[i][1]);
      }
      if (!small.empty()) times[{node, size}] = {Median(small), Median(large)};
    }
  }
  return times;
}

Cluster::NodeCollective CollectiveOf(int members, const GroupTimes& times) {
  // A machine may be so noisy that the small one takes longer.
  const double moving =
      std::max(times.large_s - times.small_s, times.large_s / 100);
  const double rate =
      static_cast<double>(kLargeAllReduceBytes - kSmallAllReduceBytes) / moving;
  Cluster::NodeCollective collective;
  collective.set_members(members);
  collective.set_latency_s(
      std::max(0.0, times.small_s - kSmallAllReduceBytes / rate));
  collective.set_bytes_per_s(rate);
  return collective;
}

Cluster::PieceTime::Piece PieceOf(ModelPiece piece) {
  switch (piece) {
    case ModelPiece::kEmbedding:
      return Cluster::PieceTime::EMBEDDING;
    case ModelPiece::kHead:
      return Cluster::PieceTime::HEAD;
    default:
      return Cluster::PieceTime::BLOCK;
  }
}

// The job's pieces in the cluster, whose devices are one for each node.
void AddPieceTimes(const TrainingSetup& job,
                   const std::vector<NodePieceSeconds>& found,
                   ClusterProfile& profile) {
  Cluster::ModelTimes& times = *profile.cluster.add_model_times();
  times = SizesOf(ModelShapeOf(job));
  for (const auto& [node, split, piece, seconds] : found) {
    Cluster::PieceTime& entry = *times.add_pieces();
    entry.set_piece(PieceOf(piece));
    entry.set_device(profile.cluster.devices(node).name());
    entry.set_tp(split.tp);
    entry.set_cp(split.cp);
    entry.set_sequence_parallel(split.sequence_parallel);
    entry.set_microbatch_size(split.microbatch_size);
    entry.set_forward_s(seconds.forward_s);
    entry.set_backward_s(seconds.backward_s);
    entry.set_backward_weight_s(seconds.backward_weight_s);
    entry.set_spread(seconds.spread);
    profile.report += fmt::format(
        "{}: {} of {} samples, tp {}{}, cp {}: forward {:.3g} s, backward "
        "{:.3g} s, of it weights {:.3g} s (spread {:.0f} %)\n",
        profile.cluster.nodes(node).name(),
        Cluster::PieceTime::Piece_Name(entry.piece()), split.microbatch_size,
        split.tp, split.sequence_parallel ? " with sequence parallelism" : "",
        split.cp, seconds.forward_s, seconds.backward_s,
        seconds.backward_weight_s, 100 * seconds.spread);
  }
}

// By the figures of the links.
absl::StatusOr<double> AllReduceSeconds(const Cluster& cluster) {
  ASSIGN_OR_RETURN(const ClusterModel model, ResolveCluster(cluster));
  std::vector<int32_t> ranks(model.num_ranks());
  std::iota(ranks.begin(), ranks.end(), 0);
  int32_t most = 0;
  for (const ClusterNode& node : model.nodes) most = std::max(most, node.count);
  return RingOf(model, ranks, most).AllReduce(kAllReduceBytes);
}

}  // namespace

absl::StatusOr<ClusterProfile> ProfileCluster(const ProfileOptions& options,
                                              Device& device,
                                              CommunicatorFactory& factory) {
  const int ranks = factory.world_size();
  const int rank = factory.world_rank();
  std::vector<int> everyone(ranks);
  std::iota(everyone.begin(), everyone.end(), 0);
  const std::unique_ptr<Communicator> world =
      factory.Create(everyone, "profile");
  const std::vector<std::string> hosts =
      GatherHosts(device, *world, options.host);
  std::vector<int> node_of(ranks, 0);
  for (int i = 1; i < ranks; ++i) {
    node_of[i] = node_of[i - 1] + (hosts[i] != hosts[i - 1] ? 1 : 0);
    for (int before = 0; before + 1 < i; ++before) {
      if (hosts[before] == hosts[i] && hosts[i - 1] != hosts[i]) {
        return FailedPrecondition(
            "ranks {} and {} run on {}, and others between them elsewhere; "
            "expected a machine's ranks in a row (mpirun --map-by slot)",
            before, i, hosts[i]);
      }
    }
  }

  world->Barrier("profile");
  const std::vector<std::vector<double>> rates =
      GatherRows(device, *world,
                 {GemmRate(device, DType::kBFloat16, options.repetitions),
                  GemmRate(device, DType::kFloat32, options.repetitions),
                  GemmRate(device, DType::kFloat64, options.repetitions),
                  ElementwiseRate(device, options.repetitions),
                  static_cast<double>(options.memory_bytes)});

  std::vector<NodePieceSeconds> pieces;
  if (options.job != nullptr) {
    std::vector<int> counts(node_of.back() + 1, 0);
    for (const int node : node_of) ++counts[node];
    pieces = TimePieces(
        *options.job,
        SplitsToTime(*options.job, ranks,
                     *std::min_element(counts.begin(), counts.end())),
        options.piece_repetitions, device, *world, node_of);
  }

  const LinkMeasurements measurements =
      MeasureLinks(options.links, device, *world, node_of);
  const auto& links = measurements.links;
  const Tensor reduced =
      Tensor::Zeros(device, {kAllReduceBytes / 4}, DType::kFloat32,
                    MemoryCategory::kCommunication, "profile");
  const double all_reduce_s = MedianSeconds(options.repetitions, [&] {
    world->AllReduce(reduced, ReduceOp::kSum, "profile").Wait();
  });
  const auto collectives =
      TimeCollectivesInNodes(options, device, factory, *world, node_of);
  ClusterProfile profile;
  if (rank != 0) return profile;
  profile.cluster.set_collectives(Cluster::DIRECT);

  for (int node = 0; node <= node_of.back(); ++node) {
    std::vector<double> bf16, fp32, fp64, memory;
    int64_t bytes = std::numeric_limits<int64_t>::max();
    int count = 0, first = -1;
    for (int i = 0; i < ranks; ++i) {
      if (node_of[i] != node) continue;
      if (first < 0) first = i;
      ++count;
      bf16.push_back(rates[i][0]);
      fp32.push_back(rates[i][1]);
      fp64.push_back(rates[i][2]);
      memory.push_back(rates[i][3]);
      bytes = std::min(bytes, static_cast<int64_t>(rates[i][4]));
    }
    Cluster::Device& kind = *profile.cluster.add_devices();
    kind.set_name(fmt::format("cpu of {}", hosts[first]));
    kind.set_peak_bf16_flops(Median(bf16));
    kind.set_peak_fp32_flops(Median(fp32));
    kind.set_achieved_bf16_flops(Median(bf16));
    kind.set_achieved_fp32_flops(Median(fp32));
    kind.set_peak_fp64_flops(Median(fp64));
    kind.set_achieved_fp64_flops(Median(fp64));
    kind.set_memory_bytes(bytes);
    kind.set_memory_bytes_per_s(Median(memory));
    Cluster::Node& entry = *profile.cluster.add_nodes();
    entry.set_name(hosts[first]);
    entry.set_device(kind.name());
    entry.set_count(count);
    // A rank alone on its machine has no link there; copies take its place.
    entry.mutable_link()->set_bytes_per_s(Median(memory));
    if (measurements.cards[node] > 0) {
      entry.set_card_bytes_per_s(measurements.cards[node]);
    }
    const auto inside = links.find({node, node});
    if (inside != links.end()) *entry.mutable_link() = LinkOf(inside->second);
    std::string reductions;
    for (const auto& [where, times] : collectives) {
      if (where.first != node) continue;
      const Cluster::NodeCollective collective =
          CollectiveOf(where.second, times);
      reductions += fmt::format("; all-reduce of {}: {:.3g} s and {:.4g} B/s",
                                collective.members(), collective.latency_s(),
                                collective.bytes_per_s());
      *entry.add_collectives() = collective;
    }
    profile.report += fmt::format(
        "{}: {} ranks, each GEMM {:.4g} (bf16, spread {:.0f} %) and {:.4g} "
        "FLOP/s (fp32, {:.0f} %), elementwise {:.3g} B/s; inside {:.3g} s and "
        "{:.4g} B/s{}{}\n",
        hosts[first], count, Median(bf16), 100 * Spread(bf16), Median(fp32),
        100 * Spread(fp32), Median(memory), entry.link().latency_s(),
        entry.link().bytes_per_s(),
        entry.card_bytes_per_s() > 0 ? fmt::format("; to all others {:.4g} B/s",
                                                   entry.card_bytes_per_s())
                                     : "",
        reductions);
  }
  for (const auto& [nodes, measured] : links) {
    if (nodes.first == nodes.second) continue;
    Cluster::NodeLink& entry = *profile.cluster.add_links();
    entry.set_from(nodes.first);
    entry.set_to(nodes.second);
    *entry.mutable_link() = LinkOf(measured);
    if (!profile.cluster.has_default_link()) {
      *profile.cluster.mutable_default_link() = entry.link();
    }
    profile.report += fmt::format(
        "{} to {}: {:.3g} s, {:.4g} B/s (spread {:.0f} %){}\n",
        profile.cluster.nodes(nodes.first).name(),
        profile.cluster.nodes(nodes.second).name(), measured.latency_s,
        measured.bytes_per_s, 100 * measured.spread,
        measured.shared_bytes_per_s > 0
            ? fmt::format(", all ranks together {:.4g} B/s",
                          measured.shared_bytes_per_s)
            : "");
  }
  profile.report +=
      fmt::format("all-reduce of {} bytes over {} ranks: {:.3g} s",
                  kAllReduceBytes, ranks, all_reduce_s);
  if (profile.cluster.nodes_size() > 1) {
    ASSIGN_OR_RETURN(const double expected_s,
                     AllReduceSeconds(profile.cluster));
    profile.cluster.set_collective_slowdown(
        std::max(1.0, all_reduce_s / expected_s));
    profile.report += fmt::format(", {:.3g} by the links' figures", expected_s);
  }
  profile.report += "\n";
  if (options.job != nullptr) AddPieceTimes(*options.job, pieces, profile);
  return profile;
}

}  // namespace trireme
