#include "scheduler/cluster/likeness.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "runtime/core/median.h"

namespace trireme {
namespace {

// Memory is read, not measured: however far rates are spread, devices with
// another size of it are others.
constexpr double kMemorySpread = 0.02;

bool WithinSpread(double a, double b, double spread) {
  if (a == b) return true;
  return std::isfinite(a) && std::isfinite(b) &&
         std::abs(a - b) <= spread * std::max(a, b);
}

void UnifyDevices(const Cluster& cluster, ClusterModel& model) {
  const auto spread_of = [&](size_t device) {
    return cluster.devices(static_cast<int>(device)).spread();
  };
  // The first that each is like.
  std::vector<size_t> like(model.devices.size());
  for (size_t i = 0; i < like.size(); ++i) {
    like[i] = i;
    for (size_t first = 0; first < i && like[i] == i; ++first) {
      const double spread = std::max(spread_of(i), spread_of(first));
      const bool alike =
          like[first] == first && spread_of(i) > 0 && spread_of(first) > 0 &&
          WithinSpread(static_cast<double>(model.devices[i].memory_bytes),
                       static_cast<double>(model.devices[first].memory_bytes),
                       kMemorySpread) &&
          std::all_of(kDeviceRates.begin(), kDeviceRates.end(),
                      [&](double ClusterDevice::*rate) {
                        return WithinSpread(model.devices[i].*rate,
                                            model.devices[first].*rate, spread);
                      });
      if (alike) like[i] = first;
    }
  }
  const std::vector<ClusterDevice> measured = model.devices;
  for (size_t first = 0; first < like.size(); ++first) {
    ClusterDevice& device = model.devices[first];
    for (double ClusterDevice::*rate : kDeviceRates) {
      std::vector<double> rates;
      for (size_t i = 0; i < like.size(); ++i) {
        if (like[i] == first) rates.push_back(measured[i].*rate);
      }
      if (!rates.empty()) device.*rate = Median(rates);
    }
    for (size_t i = 0; i < like.size(); ++i) {
      if (like[i] != first) continue;
      device.memory_bytes =
          std::min(device.memory_bytes, measured[i].memory_bytes);
      device.communicator_bytes =
          std::max(device.communicator_bytes, measured[i].communicator_bytes);
    }
  }
  for (ClusterNode& node : model.nodes) {
    node.device = static_cast<int32_t>(like[node.device]);
  }
}

struct MeasuredLink {
  ClusterLink* link = nullptr;
  double spread = 0;
};

// Gives the links that lie within their spread of the median just that.
void UnifyLinks(const std::vector<MeasuredLink>& links) {
  if (links.empty()) return;
  const auto median_of = [&](double ClusterLink::*figure) {
    std::vector<double> values;
    for (const MeasuredLink& measured : links) {
      if (std::isfinite(measured.link->*figure)) {
        values.push_back(measured.link->*figure);
      }
    }
    return values.empty() ? std::numeric_limits<double>::infinity()
                          : Median(values);
  };
  const ClusterLink median = {
      .latency_s = median_of(&ClusterLink::latency_s),
      .bytes_per_s = median_of(&ClusterLink::bytes_per_s),
      .shared_bytes_per_s = median_of(&ClusterLink::shared_bytes_per_s)};
  for (const MeasuredLink& measured : links) {
    ClusterLink& link = *measured.link;
    const auto within = [&](double ClusterLink::*rate) {
      return WithinSpread(link.*rate, median.*rate, measured.spread);
    };
    if (within(&ClusterLink::bytes_per_s) &&
        within(&ClusterLink::shared_bytes_per_s)) {
      link = median;
    }
  }
}

// The same of what a whole node reaches.
void UnifyNodes(const Cluster& cluster, ClusterModel& model,
                double ClusterNode::*rate, const std::vector<double>& spreads) {
  std::vector<double> rates;
  for (int i = 0; i < cluster.nodes_size(); ++i) {
    if (spreads[i] > 0) rates.push_back(model.nodes[i].*rate);
  }
  const double median = Median(rates);
  for (int i = 0; i < cluster.nodes_size(); ++i) {
    double& own = model.nodes[i].*rate;
    if (spreads[i] > 0 && WithinSpread(own, median, spreads[i])) own = median;
  }
}

}  // namespace

void UnifyAlike(const Cluster& cluster, ClusterModel& model) {
  std::vector<double> of_device, of_links(model.nodes.size(), 0.0);
  for (const ClusterNode& node : model.nodes) {
    of_device.push_back(cluster.devices(node.device).spread());
  }
  for (const Cluster::NodeLink& link : cluster.links()) {
    double& spread = of_links[link.from()];
    spread = std::max(spread, link.link().spread());
  }
  UnifyNodes(cluster, model, &ClusterNode::host_memory_bytes_per_s, of_device);
  UnifyNodes(cluster, model, &ClusterNode::card_bytes_per_s, of_links);
  UnifyDevices(cluster, model);
  std::vector<MeasuredLink> inside, between;
  for (int i = 0; i < cluster.nodes_size(); ++i) {
    const double spread = cluster.nodes(i).link().spread();
    if (spread > 0) inside.push_back({&model.nodes[i].link, spread});
  }
  for (const Cluster::NodeLink& link : cluster.links()) {
    if (link.link().spread() <= 0) continue;
    between.push_back({&model.node_links[static_cast<size_t>(link.from()) *
                                             model.nodes.size() +
                                         link.to()],
                       link.link().spread()});
  }
  UnifyLinks(inside);
  UnifyLinks(between);
}

}  // namespace trireme
