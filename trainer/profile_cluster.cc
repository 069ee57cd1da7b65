#include "trainer/profile_cluster.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>
#include <map>
#include <memory>
#include <numeric>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

constexpr int64_t kNameBytes = 64;
constexpr int64_t kMatrixSide = 1024;
constexpr int64_t kElementwiseBytes = 64 << 20;
constexpr int64_t kAllReduceBytes = 4 << 20;

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// (largest − smallest) / median.
double Spread(const std::vector<double>& values) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return (*high - *low) / Median(values);
}

template <typename F>
double MedianSeconds(int repetitions, F&& run) {
  run();
  std::vector<double> times;
  for (int i = 0; i < repetitions; ++i) {
    const Clock::time_point start = Clock::now();
    run();
    times.push_back(SecondsSince(start));
  }
  return Median(std::move(times));
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

struct LinkTimes {
  double latency_s = 0;
  double bytes_per_s = 0;
};

// Both directions between this rank and `peer`. The rank of lower number
// begins; each direction's time is a message there and an empty-handed answer.
LinkTimes MeasureLink(const ProfileOptions& options, Device& device,
                      Communicator& world, int peer, bool sends) {
  const auto message = [&](int64_t bytes) {
    return Tensor::Zeros(device, {bytes}, DType::kUint8,
                         MemoryCategory::kCommunication, "probe");
  };
  const Tensor small = message(options.small_bytes);
  const Tensor large = message(options.large_bytes);
  const auto there_and_back = [&](const Tensor& there) {
    if (sends) {
      world.Send(there, peer, 0, "profile").Wait();
      world.Receive(small, peer, 1, "profile").Wait();
    } else {
      world.Receive(there, peer, 0, "profile").Wait();
      world.Send(small, peer, 1, "profile").Wait();
    }
  };
  const double both =
      MedianSeconds(options.repetitions, [&] { there_and_back(small); });
  const double loaded =
      MedianSeconds(options.repetitions, [&] { there_and_back(large); });
  LinkTimes times;
  const double more = std::max(loaded - both, 1e-9);
  times.bytes_per_s =
      static_cast<double>(options.large_bytes - options.small_bytes) / more;
  times.latency_s =
      std::max(0.0, both / 2 - static_cast<double>(options.small_bytes) /
                                   times.bytes_per_s);
  return times;
}

// rows[rank]: every rank's values.
std::vector<std::vector<double>> GatherRows(Device& device, Communicator& world,
                                            const std::vector<double>& own) {
  const auto count = static_cast<int64_t>(own.size());
  const Tensor input = Tensor::FromValues<double>(
      device, {1, count}, own, MemoryCategory::kCommunication, "profile");
  const Tensor all =
      Tensor::Empty(device, {world.size(), count}, DType::kFloat64,
                    MemoryCategory::kCommunication, "profile");
  world.AllGather(input, all, "profile").Wait();
  const std::vector<double> flat = all.ToVector<double>();
  std::vector<std::vector<double>> rows;
  rows.reserve(world.size());
  for (int rank = 0; rank < world.size(); ++rank) {
    rows.emplace_back(flat.begin() + rank * count,
                      flat.begin() + (rank + 1) * count);
  }
  return rows;
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

Cluster::Link LinkOf(const std::vector<LinkTimes>& pairs) {
  std::vector<double> latencies, rates;
  for (const LinkTimes& times : pairs) {
    latencies.push_back(times.latency_s);
    rates.push_back(times.bytes_per_s);
  }
  Cluster::Link link;
  link.set_latency_s(Median(latencies));
  link.set_bytes_per_s(Median(rates));
  return link;
}

}  // namespace

std::vector<std::vector<std::pair<int, int>>> RoundRobin(int n) {
  // One place is fixed, the others turn; with odd n the fixed one is empty.
  const int places = n + n % 2;
  std::vector<int> circle(places);
  std::iota(circle.begin(), circle.end(), 0);
  std::vector<std::vector<std::pair<int, int>>> rounds;
  for (int round = 0; round + 1 < places; ++round) {
    std::vector<std::pair<int, int>>& pairs = rounds.emplace_back();
    for (int i = 0; i < places / 2; ++i) {
      const int a = circle[i];
      const int b = circle[places - 1 - i];
      if (a < n && b < n) pairs.emplace_back(std::min(a, b), std::max(a, b));
    }
    std::rotate(circle.begin() + 1, circle.end() - 1, circle.end());
  }
  return rounds;
}

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
                  ElementwiseRate(device, options.repetitions),
                  static_cast<double>(options.memory_bytes)});

  // from this rank to each other: latency and rate.
  std::vector<double> own(2 * ranks, 0.0);
  for (const auto& round : RoundRobin(ranks)) {
    world->Barrier("profile round");
    for (const auto& [a, b] : round) {
      if (rank != a && rank != b) continue;
      const int peer = rank == a ? b : a;
      for (const int sender : {a, b}) {
        const LinkTimes times =
            MeasureLink(options, device, *world, peer, rank == sender);
        if (rank != sender) continue;
        own[2 * peer] = times.latency_s;
        own[2 * peer + 1] = times.bytes_per_s;
      }
    }
  }
  const std::vector<std::vector<double>> links =
      GatherRows(device, *world, own);
  const Tensor reduced =
      Tensor::Zeros(device, {kAllReduceBytes / 4}, DType::kFloat32,
                    MemoryCategory::kCommunication, "profile");
  const double all_reduce_s = MedianSeconds(options.repetitions, [&] {
    world->AllReduce(reduced, ReduceOp::kSum, "profile").Wait();
  });
  ClusterProfile profile;
  if (rank != 0) return profile;

  std::map<std::pair<int, int>, std::vector<LinkTimes>> by_nodes;
  for (int from = 0; from < ranks; ++from) {
    for (int to = 0; to < ranks; ++to) {
      if (from == to) continue;
      by_nodes[{node_of[from], node_of[to]}].push_back(
          {links[from][2 * to], links[from][2 * to + 1]});
    }
  }
  for (int node = 0; node <= node_of.back(); ++node) {
    std::vector<double> bf16, fp32, memory;
    int64_t bytes = std::numeric_limits<int64_t>::max();
    int count = 0, first = -1;
    for (int i = 0; i < ranks; ++i) {
      if (node_of[i] != node) continue;
      if (first < 0) first = i;
      ++count;
      bf16.push_back(rates[i][0]);
      fp32.push_back(rates[i][1]);
      memory.push_back(rates[i][2]);
      bytes = std::min(bytes, static_cast<int64_t>(rates[i][3]));
    }
    Cluster::Device& kind = *profile.cluster.add_devices();
    kind.set_name(fmt::format("cpu of {}", hosts[first]));
    kind.set_peak_bf16_flops(Median(bf16));
    kind.set_peak_fp32_flops(Median(fp32));
    kind.set_achieved_bf16_flops(Median(bf16));
    kind.set_achieved_fp32_flops(Median(fp32));
    kind.set_memory_bytes(bytes);
    kind.set_memory_bytes_per_s(Median(memory));
    Cluster::Node& entry = *profile.cluster.add_nodes();
    entry.set_name(hosts[first]);
    entry.set_device(kind.name());
    entry.set_count(count);
    // A rank alone on its machine has no link there; copies take its place.
    entry.mutable_link()->set_bytes_per_s(Median(memory));
    const auto inside = by_nodes.find({node, node});
    if (inside != by_nodes.end())
      *entry.mutable_link() = LinkOf(inside->second);
    profile.report += fmt::format(
        "{}: {} ranks, each GEMM {:.4g} (bf16, spread {:.0f} %) and {:.4g} "
        "FLOP/s (fp32, {:.0f} %), elementwise {:.3g} B/s; inside {:.3g} s and "
        "{:.4g} B/s\n",
        hosts[first], count, Median(bf16), 100 * Spread(bf16), Median(fp32),
        100 * Spread(fp32), Median(memory), entry.link().latency_s(),
        entry.link().bytes_per_s());
  }
  for (const auto& [nodes, pairs] : by_nodes) {
    if (nodes.first == nodes.second) continue;
    const Cluster::Link link = LinkOf(pairs);
    Cluster::NodeLink& entry = *profile.cluster.add_links();
    entry.set_from(nodes.first);
    entry.set_to(nodes.second);
    *entry.mutable_link() = link;
    if (!profile.cluster.has_default_link()) {
      *profile.cluster.mutable_default_link() = link;
    }
    std::vector<double> bandwidths;
    for (const LinkTimes& times : pairs) {
      bandwidths.push_back(times.bytes_per_s);
    }
    profile.report += fmt::format(
        "{} to {}: {:.3g} s, {:.4g} B/s (spread {:.0f} % over {} pairs)\n",
        profile.cluster.nodes(nodes.first).name(),
        profile.cluster.nodes(nodes.second).name(), link.latency_s(),
        link.bytes_per_s(), 100 * Spread(bandwidths), pairs.size());
  }
  profile.report +=
      fmt::format("all-reduce of {} bytes over {} ranks: {:.3g} s\n",
                  kAllReduceBytes, ranks, all_reduce_s);
  return profile;
}

}  // namespace trireme
