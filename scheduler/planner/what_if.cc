#include "scheduler/planner/what_if.h"

#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "runtime/core/status.h"
#include "scheduler/planner/cluster.h"

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

absl::StatusOr<double> Changed(double value, const std::string& operation,
                               const std::string& text) {
  double operand = 0;
  if (!absl::SimpleAtod(text, &operand) || !std::isfinite(operand) ||
      operand < 0 || (operand == 0 && operation == "/=")) {
    return InvalidArgument("what-if: found {}{}, expected a number", operation,
                           text);
  }
  if (operation == "*=") return value * operand;
  if (operation == "/=") return value / operand;
  return operand;
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

absl::Status EditLink(const ParsedEdit& edit, Cluster& cluster) {
  ASSIGN_OR_RETURN(const int from,
                   IndexOf(edit.nodes[0], cluster.nodes_size()));
  ASSIGN_OR_RETURN(const int to, IndexOf(edit.nodes[1], cluster.nodes_size()));
  Cluster::Link& link = LinkOf(cluster, from, to);
  if (edit.field == "latency") {
    ASSIGN_OR_RETURN(const double latency,
                     Changed(link.latency_s(), edit.operation, edit.value));
    link.set_latency_s(latency);
    return absl::OkStatus();
  }
  const double before = link.bytes_per_s();
  ASSIGN_OR_RETURN(const double after,
                   Changed(before, edit.operation, edit.value));
  link.set_bytes_per_s(after);
  // What is shared changes with it.
  if (link.shared_bytes_per_s() > 0 && before > 0) {
    link.set_shared_bytes_per_s(link.shared_bytes_per_s() * after / before);
  }
  return absl::OkStatus();
}

void LoseNode(int node, Cluster& cluster) {
  Cluster kept = cluster;
  kept.clear_nodes();
  kept.clear_links();
  for (int i = 0; i < cluster.nodes_size(); ++i) {
    if (i != node) *kept.add_nodes() = cluster.nodes(i);
  }
  const auto lost = static_cast<uint32_t>(node);
  for (Cluster::NodeLink link : cluster.links()) {
    if (link.from() == lost || link.to() == lost) continue;
    if (link.from() > lost) link.set_from(link.from() - 1);
    if (link.to() > lost) link.set_to(link.to() - 1);
    *kept.add_links() = link;
  }
  cluster = kept;
}

// Known hardware comes with its own links inside the node.
absl::Status ChangeDevice(int index, const std::string& name,
                          Cluster& cluster) {
  Cluster::Node& node = *cluster.mutable_nodes(index);
  for (const Cluster::Device& device : cluster.devices()) {
    if (device.name() != name) continue;
    node.set_device(name);
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(
      const Cluster known,
      DescribeCluster(
          {.device = name, .nodes = 1, .devices_per_node = node.count()}));
  *cluster.add_devices() = known.devices(0);
  node.set_device(name);
  *node.mutable_link() = known.nodes(0).link();
  return absl::OkStatus();
}

absl::Status EditNode(const ParsedEdit& edit, Cluster& cluster) {
  ASSIGN_OR_RETURN(const int index,
                   IndexOf(edit.nodes[0], cluster.nodes_size()));
  if (edit.field == "lost") {
    LoseNode(index, cluster);
    return absl::OkStatus();
  }
  if (edit.field == "device") return ChangeDevice(index, edit.value, cluster);
  Cluster::Node& node = *cluster.mutable_nodes(index);
  if (edit.field == "card") {
    if (node.card_bytes_per_s() <= 0) {
      return InvalidArgument(
          "what-if: found node {} without a shared card, expected one with "
          "card_bytes_per_s",
          index);
    }
    ASSIGN_OR_RETURN(const double rate, Changed(node.card_bytes_per_s(),
                                                edit.operation, edit.value));
    if (rate <= 0) {
      return InvalidArgument("what-if: found a card of {} B/s, expected more",
                             rate);
    }
    node.set_card_bytes_per_s(rate);
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const double slowdown,
                   Changed(node.slowdown() > 0 ? node.slowdown() : 1.0,
                           edit.operation, edit.value));
  node.set_slowdown(slowdown);
  return absl::OkStatus();
}

absl::Status Edit(const std::string& text, Cluster& cluster) {
  const ParsedEdit edit = Parse(text);
  const bool changes = !edit.operation.empty() && !edit.value.empty();
  if (edit.object == "link" && edit.nodes.size() == 2 && changes &&
      (edit.field == "bandwidth" || edit.field == "latency")) {
    return EditLink(edit, cluster);
  }
  if (edit.object == "node" && edit.nodes.size() == 1 &&
      ((edit.field == "slowdown" && changes) ||
       (edit.field == "card" && changes) ||
       (edit.field == "device" && changes && edit.operation == "=") ||
       (edit.field == "lost" && edit.operation.empty()))) {
    return EditNode(edit, cluster);
  }
  return InvalidArgument(
      "what-if: found \"{}\", expected link(A,B).bandwidth/=10, "
      "link(A,B).latency*=2, node(A).slowdown=1.5, node(A).card/=2, "
      "node(A).device=H100 or node(A).lost",
      text);
}

}  // namespace

absl::Status ApplyWhatIf(std::string_view edit, Cluster& cluster) {
  if (edit.size() > kMaxLength) {
    return InvalidArgument("what-if: found {} characters, expected at most {}",
                           edit.size(), kMaxLength);
  }
  Cluster edited = cluster;
  RETURN_IF_ERROR(Edit(std::string(edit), edited));
  RETURN_IF_ERROR(ResolveCluster(edited).status());
  cluster = edited;
  return absl::OkStatus();
}

}  // namespace trireme
