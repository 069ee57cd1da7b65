#include "trainer/profile/profile_cluster.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <utility>

#include "fmt/format.h"
#include "runtime/comm/control.h"
#include "runtime/core/status.h"
#include "runtime/device/cuda/gpus.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/cluster/collectives.h"
#include "scheduler/cluster/known_products.h"
#include "scheduler/pieces/measured_times.h"
#include "trainer/planning/model_shape_of.h"
#include "trainer/profile/device_profile.h"
#include "trainer/profile/drive_profile.h"
#include "trainer/profile/memory_profile.h"
#include "trainer/profile/piece_times.h"
#include "trainer/profile/profile_statistics.h"

namespace trireme {
namespace {

constexpr double kUnsteadySpread = 0.5;

// What the driver calls the GPU; of a processor nothing.
absl::StatusOr<std::string> ProductOf(const ComputeDevice& device) {
  if (device.kind() == DeviceKind::kCpu) return "";
  ASSIGN_OR_RETURN(const std::vector<CudaGpu> gpus, FindCudaGpus());
  return gpus[device.gpu()].name;
}

// Of a node's ranks.
using Rows = std::span<const std::vector<double>>;

std::vector<double> Column(Rows rows, size_t column) {
  std::vector<double> values;
  for (const std::vector<double>& row : rows) values.push_back(row[column]);
  return values;
}
double MedianOf(Rows rows, size_t column) {
  return Median(Column(rows, column));
}
double LargestOf(Rows rows, size_t column) {
  const std::vector<double> values = Column(rows, column);
  return *std::max_element(values.begin(), values.end());
}

// The device of a node: what its ranks reached, and as peaks what the data
// sheet of the product says where it is known and more.
void SetRates(const DeviceRates& rates, Rows rows, const std::string& product,
              Cluster::Device& device) {
  const auto peak = [&](double reached, int64_t element_bytes, bool tf32) {
    return PeakFlopsOfDevice(reached, product, element_bytes, tf32);
  };
  const double bf16 = MedianOf(rows, kBFloat16Flops);
  const double fp32 = MedianOf(rows, kFloat32Flops);
  const double fp64 = MedianOf(rows, kFloat64Flops);
  device.set_achieved_bf16_flops(bf16);
  device.set_achieved_fp32_flops(fp32);
  device.set_achieved_fp64_flops(fp64);
  device.set_peak_bf16_flops(peak(bf16, 2, /*tf32=*/false));
  device.set_peak_fp32_flops(peak(fp32, 4, /*tf32=*/false));
  device.set_peak_fp64_flops(fp64);
  if (const double tf32 = MedianOf(rows, kTf32Flops); tf32 > 0) {
    device.set_achieved_tf32_flops(tf32);
    device.set_peak_tf32_flops(peak(tf32, 4, /*tf32=*/true));
  }
  if (const double float8 = MedianOf(rows, kFloat8Flops); float8 > 0) {
    device.set_achieved_fp8_flops(float8);
    device.set_peak_fp8_flops(peak(float8, 1, /*tf32=*/false));
  }
  device.set_memory_bytes_per_s(MedianOf(rows, kMemoryBytes));
  device.set_to_device_bytes_per_s(MedianOf(rows, kToDeviceBytes));
  device.set_to_host_bytes_per_s(MedianOf(rows, kToHostBytes));
  device.set_launch_s(MedianOf(rows, kLaunchSeconds));
  device.set_compute_beside_copies(LargestOf(rows, kBesideCopies));
  device.set_compute_beside_communication(LargestOf(rows, kBesideReductions));
  double spread = LargestOf(rows, kRateSpread);
  for (const DeviceRate rate :
       {kBFloat16Flops, kFloat32Flops, kMemoryBytes, kToDeviceBytes}) {
    spread = std::max(spread, Spread(Column(rows, rate)));
  }
  device.set_spread(spread);
  const auto add_share = [&](int64_t side, double share) {
    const auto n = static_cast<double>(side);
    Cluster::Device::RateShare& point = *device.add_product_shares();
    point.set_flops(2 * n * n * n);
    point.set_share(std::min(1.0, share));
  };
  for (size_t i = 0; i < rates.small_sides.size(); ++i) {
    add_share(rates.small_sides[i], MedianOf(rows, kNumDeviceRates + i) / fp32);
  }
  add_share(rates.product_side, 1);
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

  const ComputeDevice& kind = options.computes_on;
  ASSIGN_OR_RETURN(const std::string own_product, ProductOf(kind));
  const std::vector<std::string> products =
      Control(*world).AllGather(own_product, "products");
  // The job's device may multiply fp32 in TF32, which is a rate of its own.
  std::unique_ptr<Device> plain;
  if (!device.on_host()) plain = kind.Make(options.memory_bytes, {});
  ASSIGN_OR_RETURN(const DeviceRates rates,
                   MeasureDeviceRates({.repetitions = options.repetitions,
                                       .product_side = options.product_side,
                                       .bytes = options.elementwise_bytes},
                                      kind, plain != nullptr ? *plain : device,
                                      factory, *world));
  plain.reset();

  std::vector<NodePieceSeconds> pieces;
  if (options.job != nullptr) {
    pieces = TimePieces(
        *options.job,
        SplitsToTime(*options.job, ranks,
                     *std::min_element(counts.begin(), counts.end())),
        options.piece_repetitions, device, *world, node_of);
  }

  const ProcessMemory own_memory = MeasureProcessMemory(kind, device, factory);
  const std::vector<std::vector<double>> memory =
      GatherRows(*world, {static_cast<double>(options.memory_bytes),
                          static_cast<double>(own_memory.reserved_bytes),
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
    const int count = counts[node];
    const int first = std::accumulate(counts.begin(), counts.begin() + node, 0);
    const Rows rows = Rows(rates.of_rank).subspan(first, count);
    const Rows memory_rows = Rows(memory).subspan(first, count);
    const std::vector<double> limits = Column(memory_rows, 0);
    const double reserved = LargestOf(memory_rows, 1);
    const double communicator = LargestOf(memory_rows, 2);
    Cluster::Device& device_of_node = *profile.cluster.add_devices();
    SetRates(rates, rows, products[first], device_of_node);
    device_of_node.set_name(fmt::format(
        "{} of {}", products[first].empty() ? kProcessor : products[first],
        hosts[first]));
    device_of_node.set_reserved_bytes(static_cast<uint64_t>(reserved));
    device_of_node.set_communicator_bytes(static_cast<uint64_t>(communicator));
    device_of_node.set_memory_bytes(
        static_cast<uint64_t>(*std::min_element(limits.begin(), limits.end())) +
        device_of_node.reserved_bytes());
    Cluster::Node& entry = *profile.cluster.add_nodes();
    entry.set_name(hosts[first]);
    entry.set_device(device_of_node.name());
    entry.set_count(count);
    // A rank alone on its machine has no link there; copies take its place.
    entry.mutable_link()->set_bytes_per_s(MedianOf(rows, kMemoryBytes));
    // The ranks were measured together.
    const std::vector<double> of_host = Column(rows, kHostMemoryBytes);
    entry.set_host_memory_bytes_per_s(
        std::accumulate(of_host.begin(), of_host.end(), 0.0));
    if (measurements.cards[node] > 0) {
      entry.set_card_bytes_per_s(measurements.cards[node]);
    }
    const auto inside = links.find({node, node});
    if (inside != links.end()) *entry.mutable_link() = LinkOf(inside->second);
    const double bf16 = device_of_node.achieved_bf16_flops();
    const double fp32 = device_of_node.achieved_fp32_flops();
    profile.report += fmt::format(
        "{}: {} ranks, each GEMM {:.4g} (bf16, spread {:.0f} %) and {:.4g} "
        "FLOP/s (fp32, {:.0f} %), elementwise {:.3g} B/s; beside the arena "
        "{:.3g} bytes and {:.3g} for each communicator; inside {:.3g} s and "
        "{:.4g} B/s{}\n",
        hosts[first], count, bf16, 100 * Spread(Column(rows, kBFloat16Flops)),
        fp32, 100 * Spread(Column(rows, kFloat32Flops)),
        MedianOf(rows, kMemoryBytes), reserved, communicator,
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
