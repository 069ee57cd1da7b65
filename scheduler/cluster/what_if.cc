#include "scheduler/cluster/what_if.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "runtime/core/status.h"
#include "scheduler/cluster/cluster.h"

namespace trireme {
namespace {

constexpr size_t kMaxLength = 200;

// OBJECT(NODE,..).FIELD, with an operation and a value or without.
struct ParsedEdit {
  std::string object;
  std::vector<std::string> nodes;
  std::string field;
  std::string operation;
  std::string value;
};

bool IsLoss(const ParsedEdit& edit) {
  return edit.object == "node" && edit.nodes.size() == 1 &&
         edit.field == "lost" && edit.operation.empty();
}

// Text of another form leaves `object` empty.
ParsedEdit Parse(const std::string& text) {
  const size_t open = text.find('(');
  const size_t close = text.find(").");
  if (open == std::string::npos || close == std::string::npos || close < open) {
    return {};
  }
  ParsedEdit edit;
  edit.object = text.substr(0, open);
  edit.nodes = absl::StrSplit(text.substr(open + 1, close - open - 1), ',');
  const std::string rest = text.substr(close + 2);
  const size_t equals = rest.find('=');
  if (equals == std::string::npos) {
    edit.field = rest;
    return edit;
  }
  const bool scales =
      equals > 0 && (rest[equals - 1] == '*' || rest[equals - 1] == '/');
  const size_t operation = scales ? equals - 1 : equals;
  edit.field = rest.substr(0, operation);
  edit.operation = rest.substr(operation, equals + 1 - operation);
  edit.value = rest.substr(equals + 1);
  return edit;
}

// The index that the text names, below `count`.
absl::StatusOr<int> IndexOf(const std::string& text, int count) {
  int index = 0;
  if (absl::SimpleAtoi(text, &index) && index >= 0 && index < count) {
    return index;
  }
  return InvalidArgument("what-if: found node {}, expected 0 to {}", text,
                         count - 1);
}

absl::StatusOr<double> Changed(double value, const ParsedEdit& edit,
                               bool may_be_zero = false) {
  double operand = 0;
  const bool is_number =
      absl::SimpleAtod(edit.value, &operand) && std::isfinite(operand);
  if (!is_number || operand < 0 ||
      (operand == 0 && !(may_be_zero && edit.operation != "/="))) {
    return InvalidArgument("what-if: found {}{}, expected a positive number",
                           edit.operation, edit.value);
  }
  if (edit.operation == "*=") return value * operand;
  if (edit.operation == "/=") return value / operand;
  return operand;
}

std::string ChangeText(double before, double after) {
  return fmt::format("{:.4g} -> {:.4g}", before, after);
}

// The link to edit, made from the default where it was not given.
Cluster::Link& LinkOf(Cluster& cluster, int from, int to) {
  if (from == to) return *cluster.mutable_nodes(from)->mutable_link();
  for (Cluster::NodeLink& link : *cluster.mutable_links()) {
    if (static_cast<int>(link.from()) == from &&
        static_cast<int>(link.to()) == to) {
      return *link.mutable_link();
    }
  }
  Cluster::NodeLink& link = *cluster.add_links();
  link.set_from(from);
  link.set_to(to);
  *link.mutable_link() = cluster.default_link();
  return *link.mutable_link();
}

// Edits return what they changed, in words.
absl::StatusOr<std::string> EditLink(const ParsedEdit& edit, Cluster& cluster) {
  ASSIGN_OR_RETURN(const int from,
                   IndexOf(edit.nodes[0], cluster.nodes_size()));
  ASSIGN_OR_RETURN(const int to, IndexOf(edit.nodes[1], cluster.nodes_size()));
  Cluster::Link& link = LinkOf(cluster, from, to);
  if (edit.field == "latency") {
    const double before = link.latency_s();
    ASSIGN_OR_RETURN(const double after,
                     Changed(before, edit, /*may_be_zero=*/true));
    link.set_latency_s(after);
    return ChangeText(before, after) + " s";
  }
  const double before = link.bytes_per_s();
  ASSIGN_OR_RETURN(const double after, Changed(before, edit));
  link.set_bytes_per_s(after);
  // What is shared changes with it.
  if (link.shared_bytes_per_s() > 0 && before > 0) {
    link.set_shared_bytes_per_s(link.shared_bytes_per_s() * after / before);
  }
  return ChangeText(before, after) + " B/s";
}

// Known hardware comes with its own links inside the node and its own host.
absl::Status ChangeDevice(int index, const std::string& name,
                          Cluster& cluster) {
  Cluster::Node& node = *cluster.mutable_nodes(index);
  for (const Cluster::Device& device : cluster.devices()) {
    if (device.name() != name) continue;
    node.set_device(name);
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const Cluster known,
                   DescribeCluster({.device = name,
                                    .nodes = 1,
                                    .devices_per_node = node.count(),
                                    .launch_s = kUsualLaunchSeconds,
                                    .ramp_s = kUsualRampSeconds}));
  *cluster.add_devices() = known.devices(0);
  node.set_device(name);
  *node.mutable_link() = known.nodes(0).link();
  node.set_host_memory_bytes_per_s(known.nodes(0).host_memory_bytes_per_s());
  node.set_host_memory_bytes(known.nodes(0).host_memory_bytes());
  return absl::OkStatus();
}

absl::StatusOr<std::string> EditNode(const ParsedEdit& edit, Cluster& cluster) {
  ASSIGN_OR_RETURN(const int index,
                   IndexOf(edit.nodes[0], cluster.nodes_size()));
  Cluster::Node& node = *cluster.mutable_nodes(index);
  if (edit.field == "lost") {
    const std::string name = node.name();
    std::vector<int32_t> kept;
    for (int i = 0; i < cluster.nodes_size(); ++i) {
      if (i != index) kept.push_back(i);
    }
    KeepNodes(kept, cluster);
    return fmt::format("without {}, {} nodes left", name, cluster.nodes_size());
  }
  if (edit.field == "device") {
    const std::string before = node.device();
    RETURN_IF_ERROR(ChangeDevice(index, edit.value, cluster));
    return fmt::format("{} -> {}", before, edit.value);
  }
  if (edit.field == "card") {
    const double before = node.card_bytes_per_s();
    if (before <= 0) {
      return InvalidArgument(
          "what-if: found node {} without a shared card, expected one with "
          "card_bytes_per_s",
          index);
    }
    ASSIGN_OR_RETURN(const double after, Changed(before, edit));
    node.set_card_bytes_per_s(after);
    return ChangeText(before, after) + " B/s";
  }
  const double before = node.slowdown() > 0 ? node.slowdown() : 1.0;
  ASSIGN_OR_RETURN(const double after, Changed(before, edit));
  node.set_slowdown(after);
  return ChangeText(before, after);
}

absl::StatusOr<std::string> Edit(const ParsedEdit& edit,
                                 const std::string& text, Cluster& cluster) {
  const bool changes = !edit.operation.empty() && !edit.value.empty();
  if (edit.object == "link" && edit.nodes.size() == 2 && changes &&
      (edit.field == "bandwidth" || edit.field == "latency")) {
    return EditLink(edit, cluster);
  }
  if (edit.object == "node" && edit.nodes.size() == 1 &&
      ((edit.field == "slowdown" && changes) ||
       (edit.field == "card" && changes) ||
       (edit.field == "device" && changes && edit.operation == "=") ||
       IsLoss(edit))) {
    return EditNode(edit, cluster);
  }
  return InvalidArgument(
      "what-if: found \"{}\", expected link(A,B).bandwidth/=10, "
      "link(A,B).latency*=2, node(A).slowdown=1.5, node(A).card/=2, "
      "node(A).device=H100 or node(A).lost",
      text);
}

}  // namespace

void KeepNodes(const std::vector<int32_t>& nodes, Cluster& cluster) {
  Cluster kept = cluster;
  kept.clear_nodes();
  kept.clear_links();
  // By the old number.
  std::map<uint32_t, uint32_t> numbers;
  for (const int32_t node : nodes) {
    numbers.emplace(node, static_cast<uint32_t>(kept.nodes_size()));
    *kept.add_nodes() = cluster.nodes(node);
  }
  for (Cluster::NodeLink link : cluster.links()) {
    const auto from = numbers.find(link.from());
    const auto to = numbers.find(link.to());
    if (from == numbers.end() || to == numbers.end()) continue;
    link.set_from(from->second);
    link.set_to(to->second);
    *kept.add_links() = link;
  }
  // Groups over more nodes can be no more.
  kept.clear_collective_times();
  for (const Cluster::CollectiveTime& time : cluster.collective_times()) {
    if (time.nodes() <= nodes.size()) *kept.add_collective_times() = time;
  }
  cluster = kept;
}

absl::StatusOr<std::string> ApplyWhatIfs(const std::vector<std::string>& edits,
                                         Cluster& cluster) {
  // Nodes are lost last, the last of them first: every edit means the nodes
  // that the cluster has now.
  std::vector<std::pair<ParsedEdit, std::string>> others, losses;
  for (const std::string& text : edits) {
    if (text.size() > kMaxLength) {
      return InvalidArgument(
          "what-if: found {} characters, expected at most {}", text.size(),
          kMaxLength);
    }
    ParsedEdit edit = Parse(text);
    (IsLoss(edit) ? losses : others).emplace_back(std::move(edit), text);
  }
  for (const auto& [edit, text] : losses) {
    RETURN_IF_ERROR(IndexOf(edit.nodes[0], cluster.nodes_size()).status());
  }
  const auto node_of = [](const auto& loss) {
    int index = 0;
    return absl::SimpleAtoi(loss.first.nodes[0], &index) ? index : 0;
  };
  std::sort(losses.begin(), losses.end(), [&](const auto& a, const auto& b) {
    return node_of(a) > node_of(b);
  });
  others.insert(others.end(), losses.begin(), losses.end());
  Cluster edited = cluster;
  std::string changes;
  for (const auto& [edit, text] : others) {
    ASSIGN_OR_RETURN(const std::string change, Edit(edit, text, edited));
    changes += fmt::format("what if {}: {}\n", text, change);
  }
  RETURN_IF_ERROR(ResolveCluster(edited).status());
  cluster = edited;
  return changes;
}

}  // namespace trireme
