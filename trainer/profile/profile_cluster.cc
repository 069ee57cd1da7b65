#include "trainer/profile/profile_cluster.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <thread>
#include <utility>

#include "fmt/format.h"
#include "runtime/comm/control.h"
#include "runtime/core/status.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/pointwise.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/cluster/collectives.h"
#include "scheduler/cluster/known_products.h"
#include "scheduler/pieces/measured_times.h"
#include "trainer/model_shape_of.h"
#include "trainer/profile/drive_profile.h"
#include "trainer/profile/memory_profile.h"
#include "trainer/profile/piece_times.h"
#include "trainer/profile/profile_statistics.h"

namespace trireme {
namespace {

constexpr int64_t kMatrixSide = 1024;
// Of smaller products, which do not reach the rate of that one.
constexpr std::array<int64_t, 4> kSmallSides = {32, 64, 128, 256};
constexpr int64_t kElementwiseBytes = 64 << 20;
constexpr double kUnsteadySpread = 0.5;

double MedianSeconds(int repetitions, const std::function<void()>& run) {
  return Median(TimesOf(repetitions, run));
}

double ProductFlops(int64_t side) {
  const auto n = static_cast<double>(side);
  return 2 * n * n * n;
}

std::vector<double> GemmSeconds(Device& device, DType dtype, int64_t side,
                                int repetitions) {
  const Tensor a = Tensor::Zeros(device, {side, side}, dtype);
  const Tensor b = Tensor::Zeros(device, {side, side}, dtype);
  return TimesOf(repetitions, [&] { MatMul(a, b); });
}

double GemmRate(Device& device, DType dtype, int64_t side, int repetitions) {
  return ProductFlops(side) /
         Median(GemmSeconds(device, dtype, side, repetitions));
}

// Two reads and a write.
std::vector<double> ElementwiseSeconds(Device& device, int repetitions) {
  const Shape shape = {kElementwiseBytes / 4};
  const Tensor x = Tensor::Zeros(device, shape, DType::kFloat32);
  const Tensor y = Tensor::Zeros(device, shape, DType::kFloat32);
  return TimesOf(repetitions, [&] { AddInPlace(x, y); });
}

// Bytes of a copy between two places of the host's memory, which is where the
// CPU device's tensors are too.
double CopyRate(Device& device, int repetitions) {
  const Shape shape = {kElementwiseBytes / 4};
  const Tensor from = Tensor::Zeros(device, shape, DType::kFloat32);
  const Tensor to = Tensor::Zeros(device, shape, DType::kFloat32);
  return kElementwiseBytes /
         MedianSeconds(repetitions, [&] { to.CopyFrom(from); });
}

// How many times as long a product takes while something else of the device
// runs, `beside` it.
double Slowed(double beside_s, double alone_s) {
  return std::max(1.0, beside_s / alone_s);
}

// While a copy between two places of the host's memory goes on.
double SlowedByCopies(Device& device, double alone_s, int repetitions) {
  std::vector<char> from(kElementwiseBytes), to(kElementwiseBytes);
  std::atomic<bool> stop = false;
  std::thread copying([&] {
    while (!stop) std::memcpy(to.data(), from.data(), from.size());
  });
  const double beside_s =
      Median(GemmSeconds(device, DType::kFloat32, kMatrixSide, repetitions));
  stop = true;
  copying.join();
  return Slowed(beside_s, alone_s);
}

// While all ranks add up a large tensor. Collective.
double SlowedByReductions(Device& device, CommunicatorFactory& factory,
                          std::span<const int> everyone, double alone_s,
                          int repetitions) {
  if (factory.world_size() == 1) return 1;
  const std::unique_ptr<Communicator> group =
      factory.Create(everyone, "profile beside compute", Progress::kBackground);
  const Tensor sum =
      Tensor::Zeros(device, {kElementwiseBytes / 4}, DType::kFloat32,
                    MemoryCategory::kCommunication, "profile");
  const Shape shape = {kMatrixSide, kMatrixSide};
  const Tensor a = Tensor::Zeros(device, shape, DType::kFloat32);
  const Tensor b = Tensor::Zeros(device, shape, DType::kFloat32);
  std::vector<double> beside_s;
  for (int i = 0; i < repetitions; ++i) {
    auto pending = group->AllReduce(sum, ReduceOp::kSum, "profile");
    beside_s.push_back(SecondsOf([&] { MatMul(a, b); }));
    pending.Wait();
  }
  return Slowed(Median(beside_s), alone_s);
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

Cluster::PieceTime::Piece PieceOf(ModelPiece::Kind piece) {
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
    entry.set_piece(PieceOf(piece.kind));
    entry.set_block_kind(piece.block_kind);
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

// The collectives beside what the cluster's links give for them.
absl::Status AddCollectives(const std::vector<CollectiveMeasurement>& measured,
                            std::span<const int> counts,
                            ClusterProfile& profile) {
  ASSIGN_OR_RETURN(const ClusterModel model, ResolveCluster(profile.cluster));
  for (const CollectiveMeasurement& found : measured) {
    int room = std::numeric_limits<int>::max();
    for (const int rank : found.ranks) {
      room = std::min(room, counts[model.node_of_rank[rank]]);
    }
    // The ranks of a node that took part, in this group or another.
    const int flows = room - room % found.shape.ranks_per_node;
    const CollectiveSeconds by_links =
        RingOf(model, {found.ranks.begin(), found.ranks.end()}, flows)
            .SecondsOf(found.kind);
    Cluster::CollectiveTime& entry = *profile.cluster.add_collective_times();
    entry.set_kind(static_cast<Cluster::CollectiveTime::Kind>(found.kind));
    entry.set_nodes(found.shape.nodes);
    entry.set_ranks_per_node(found.shape.ranks_per_node);
    entry.set_latency_s(found.latency_s);
    entry.set_bytes_per_s(found.bytes_per_s);
    entry.set_links_latency_s(by_links.latency_s);
    entry.set_links_bytes_per_s(1 / by_links.s_per_byte);
    entry.set_spread(found.spread);
    profile.report += fmt::format(
        "{} of {} x {} ranks: {:.3g} s, {:.4g} B/s (spread {:.0f} %); by the "
        "links {:.3g} s, {:.4g} B/s\n",
        Cluster::CollectiveTime::Kind_Name(entry.kind()), found.shape.nodes,
        found.shape.ranks_per_node, found.latency_s, found.bytes_per_s,
        100 * found.spread, by_links.latency_s, 1 / by_links.s_per_byte);
  }
  return absl::OkStatus();
}

// Of each rank: what it writes and reads alone, and both ways at once, in
// bytes/s, and what is free in the folder.
absl::StatusOr<std::vector<std::vector<double>>> MeasureDrives(
    const ProfileOptions& options, Communicator& world) {
  const absl::StatusOr<DriveRates> rates =
      MeasureDrive(options.drive_folder, options.drive_bytes,
                   [&] { world.Barrier("drive profile"); });
  RETURN_IF_ERROR(Control(world).Agree(rates.status(), "drive profile"));
  return GatherRows(
      world, {rates->write_bytes_per_s, rates->read_bytes_per_s,
              rates->both_bytes_per_s, static_cast<double>(rates->free_bytes)});
}

// What the ranks of a node measured of its drive.
void AddDrive(const ProfileOptions& options,
              const std::vector<std::vector<double>>& drives,
              const std::vector<int>& node_of, int node, Cluster::Node& entry,
              std::string& report) {
  double write = 0, read = 0, both = 0;
  double free = std::numeric_limits<double>::max();
  for (size_t i = 0; i < drives.size(); ++i) {
    if (node_of[i] != node) continue;
    write += drives[i][0];
    read += drives[i][1];
    both += drives[i][2];
    free = std::min(free, drives[i][3]);
  }
  entry.set_drive_bytes_per_s(both);
  entry.set_drive_folder(options.drive_folder);
  entry.set_drive_free_bytes(static_cast<uint64_t>(free));
  report += fmt::format(
      "{}: {} is written at {:.4g} B/s, read at {:.4g} B/s, and both ways at "
      "once at {:.4g} B/s each; {:.4g} bytes are free there\n",
      entry.name(), options.drive_folder, write, read, both, free);
}

// A warning where repetitions of one measurement differ too much to plan by.
std::string UnsteadyText(const Cluster& cluster) {
  int measured = 0, unsteady = 0;
  const auto look = [&](const auto& measurement) {
    ++measured;
    unsteady += measurement.spread() > kUnsteadySpread ? 1 : 0;
  };
  for (const auto& link : cluster.links()) look(link.link());
  for (const auto& time : cluster.collective_times()) look(time);
  for (const auto& times : cluster.model_times()) {
    for (const auto& piece : times.pieces()) look(piece);
  }
  if (unsteady == 0) return "";
  return fmt::format(
      "WARNING: {} of {} measurements differ by more than {:.0f} % from "
      "repetition to repetition: what else runs on these machines makes plans "
      "by this profile unreliable\n",
      unsteady, measured, 100 * kUnsteadySpread);
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
      Control(*world).AllGather(options.host, "hosts");
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

  std::vector<int> counts(node_of.back() + 1, 0);
  for (const int node : node_of) ++counts[node];

  world->Barrier("profile");
  const std::vector<double> bf16_s =
      GemmSeconds(device, DType::kBFloat16, kMatrixSide, options.repetitions);
  const std::vector<double> fp32_s =
      GemmSeconds(device, DType::kFloat32, kMatrixSide, options.repetitions);
  const std::vector<double> elementwise_s =
      ElementwiseSeconds(device, options.repetitions);
  const std::vector<std::vector<double>> rates = GatherRows(
      *world,
      {ProductFlops(kMatrixSide) / Median(bf16_s),
       ProductFlops(kMatrixSide) / Median(fp32_s),
       GemmRate(device, DType::kFloat64, kMatrixSide, options.repetitions),
       3.0 * kElementwiseBytes / Median(elementwise_s),
       static_cast<double>(options.memory_bytes),
       CopyRate(device, options.repetitions),
       std::max({Spread(bf16_s), Spread(fp32_s), Spread(elementwise_s)}),
       SlowedByCopies(device, Median(fp32_s), options.repetitions),
       SlowedByReductions(device, factory, everyone, Median(fp32_s),
                          options.repetitions)});
  std::vector<double> own_small_rates;
  for (const int64_t side : kSmallSides) {
    own_small_rates.push_back(
        GemmRate(device, DType::kFloat32, side, options.repetitions));
  }
  const std::vector<std::vector<double>> small_rates =
      GatherRows(*world, own_small_rates);

  std::vector<NodePieceSeconds> pieces;
  if (options.job != nullptr) {
    pieces = TimePieces(
        *options.job,
        SplitsToTime(*options.job, ranks,
                     *std::min_element(counts.begin(), counts.end())),
        options.piece_repetitions, device, *world, node_of);
  }

  const ProcessMemory own_memory = MeasureProcessMemory(device, factory);
  const std::vector<std::vector<double>> process_memory =
      GatherRows(*world, {static_cast<double>(own_memory.reserved_bytes),
                          static_cast<double>(own_memory.communicator_bytes)});

  const LinkMeasurements measurements =
      MeasureLinks(options.links, device, *world, node_of);
  const auto& links = measurements.links;
  const std::vector<CollectiveMeasurement> collectives =
      MeasureCollectives(options.collectives, device, factory, *world, counts);
  std::vector<std::vector<double>> drives;
  if (!options.drive_folder.empty()) {
    ASSIGN_OR_RETURN(drives, MeasureDrives(options, *world));
  }
  ClusterProfile profile;
  if (rank != 0) return profile;
  profile.cluster.set_collectives(Cluster::DIRECT);

  for (int node = 0; node <= node_of.back(); ++node) {
    std::vector<double> bf16, fp32, fp64, memory, copies;
    double reserved = 0, communicator = 0, spread = 0;
    double by_copies = 1, by_reductions = 1;
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
      copies.push_back(rates[i][5]);
      spread = std::max(spread, rates[i][6]);
      by_copies = std::max(by_copies, rates[i][7]);
      by_reductions = std::max(by_reductions, rates[i][8]);
      reserved = std::max(reserved, process_memory[i][0]);
      communicator = std::max(communicator, process_memory[i][1]);
    }
    Cluster::Device& kind = *profile.cluster.add_devices();
    kind.set_name(fmt::format("{} of {}", kProcessor, hosts[first]));
    kind.set_peak_bf16_flops(Median(bf16));
    kind.set_peak_fp32_flops(Median(fp32));
    kind.set_achieved_bf16_flops(Median(bf16));
    kind.set_achieved_fp32_flops(Median(fp32));
    kind.set_peak_fp64_flops(Median(fp64));
    kind.set_achieved_fp64_flops(Median(fp64));
    kind.set_reserved_bytes(static_cast<uint64_t>(reserved));
    kind.set_communicator_bytes(static_cast<uint64_t>(communicator));
    kind.set_memory_bytes(bytes + kind.reserved_bytes());
    kind.set_to_device_bytes_per_s(Median(copies));
    kind.set_to_host_bytes_per_s(Median(copies));
    kind.set_memory_bytes_per_s(Median(memory));
    kind.set_spread(std::max(
        {spread, Spread(bf16), Spread(fp32), Spread(memory), Spread(copies)}));
    kind.set_compute_beside_copies(by_copies);
    kind.set_compute_beside_communication(by_reductions);
    const auto add_share = [&](int64_t side, double share) {
      Cluster::Device::RateShare& point = *kind.add_product_shares();
      point.set_flops(ProductFlops(side));
      point.set_share(std::min(1.0, share));
    };
    for (size_t i = 0; i < kSmallSides.size(); ++i) {
      std::vector<double> small;
      for (int j = 0; j < ranks; ++j) {
        if (node_of[j] == node) small.push_back(small_rates[j][i]);
      }
      add_share(kSmallSides[i], Median(small) / Median(fp32));
    }
    add_share(kMatrixSide, 1);
    Cluster::Node& entry = *profile.cluster.add_nodes();
    entry.set_name(hosts[first]);
    entry.set_device(kind.name());
    entry.set_count(count);
    // A rank alone on its machine has no link there; copies take its place.
    entry.mutable_link()->set_bytes_per_s(Median(memory));
    // These devices compute in the host's memory, and were measured together.
    entry.set_host_memory_bytes_per_s(
        std::accumulate(memory.begin(), memory.end(), 0.0));
    if (measurements.cards[node] > 0) {
      entry.set_card_bytes_per_s(measurements.cards[node]);
    }
    const auto inside = links.find({node, node});
    if (inside != links.end()) *entry.mutable_link() = LinkOf(inside->second);
    profile.report += fmt::format(
        "{}: {} ranks, each GEMM {:.4g} (bf16, spread {:.0f} %) and {:.4g} "
        "FLOP/s (fp32, {:.0f} %), elementwise {:.3g} B/s; beside the arena "
        "{:.3g} bytes and {:.3g} for each communicator; inside {:.3g} s and "
        "{:.4g} B/s{}\n",
        hosts[first], count, Median(bf16), 100 * Spread(bf16), Median(fp32),
        100 * Spread(fp32), Median(memory), reserved, communicator,
        entry.link().latency_s(), entry.link().bytes_per_s(),
        entry.card_bytes_per_s() > 0 ? fmt::format("; to all others {:.4g} B/s",
                                                   entry.card_bytes_per_s())
                                     : "");
  }
  if (!drives.empty()) {
    for (int node = 0; node <= node_of.back(); ++node) {
      AddDrive(options, drives, node_of, node,
               *profile.cluster.mutable_nodes(node), profile.report);
    }
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
  RETURN_IF_ERROR(AddCollectives(collectives, counts, profile));
  if (options.job != nullptr) AddPieceTimes(*options.job, pieces, profile);
  profile.report += UnsteadyText(profile.cluster);
  return profile;
}

}  // namespace trireme
