#include "scheduler/search/unlike_clusters_testing.h"

#include <cmath>
#include <numeric>

#include "runtime/core/log.h"
#include "scheduler/pieces/transformer_pieces_testing.h"

namespace trireme {
namespace {

// Numerical Recipes' generator.
class Random {
 public:
  explicit Random(uint32_t seed) : state_(seed) {}

  // Evenly over the logarithm.
  double Between(double least, double most) {
    state_ = state_ * 1664525 + 1013904223;
    return least * std::pow(most / least, (state_ >> 8) * 0x1p-24);
  }

 private:
  uint32_t state_;
};

}  // namespace

PlannerInput UnlikeCluster(const std::vector<uint32_t>& devices,
                           uint32_t seed) {
  PlannerInput input;
  input.model.name = "DiT";
  input.model.layers = 12;
  input.model.hidden = 2048;
  input.model.mlp_hidden = 8192;
  input.model.heads = 16;
  input.model.tokens = 1024;
  input.model.pieces =
      PiecesByFormulas({.modulation_parameters = 6 * 2048 * 2048});
  input.global_batch =
      2 * std::accumulate(devices.begin(), devices.end(), int64_t{0});
  const auto nodes = static_cast<uint32_t>(devices.size());
  absl::StatusOr<Cluster> cluster =
      DescribeCluster({.nodes = nodes, .devices_per_node = 1});
  CHECK(cluster.ok());
  Random random(seed);
  for (uint32_t from = 0; from < nodes; ++from) {
    Cluster::Node& node = *cluster->mutable_nodes(static_cast<int>(from));
    node.set_count(devices[from]);
    node.set_slowdown(random.Between(1, 3));
    for (uint32_t to = 0; to < nodes; ++to) {
      if (from == to) continue;
      Cluster::NodeLink& link = *cluster->add_links();
      link.set_from(from);
      link.set_to(to);
      *link.mutable_link() = cluster->default_link();
      const double rate = random.Between(2e8, 1e10);
      link.mutable_link()->set_bytes_per_s(rate);
      link.mutable_link()->set_shared_bytes_per_s(rate);
    }
  }
  input.cluster = *std::move(cluster);
  return input;
}

}  // namespace trireme
