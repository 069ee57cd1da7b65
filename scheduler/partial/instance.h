// A SkipPipe problem: nodes in stage groups, microbatches that each visit only
// `path_length` of the stages, and what it costs. Pure data; everything else in
// this folder is a function of it.
//
// A microbatch starts at a *data node* of stage group 0 (embedding, first
// blocks, head and loss), visits path_length - 1 nodes of distinct other
// stages, and returns to the data node for the loss; the backward mirrors the
// path over the same links. Its 2 L + 1 tasks are, in order: forward on
// path[0..L-1], loss on path[0], backward on path[L-1..0]. A forward takes the
// node's forward_s, the loss a quarter and the backward one and a half of it.
//
// Source: SkipPipe (Blagoev, Ersoy, Chen: "SkipPipe: Partial and Reordered
// Pipelining Framework for Training LLMs in Heterogeneous Networks", 2025).

#ifndef TRIREME_SCHEDULER_PARTIAL_INSTANCE_H_
#define TRIREME_SCHEDULER_PARTIAL_INSTANCE_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace trireme {

// Visited stages are bits of a word.
inline constexpr int32_t kMaxSkipStages = 64;

// Which orders of stages a path may take (CC3). The frontier is the highest
// stage visited so far. Going to an unvisited stage below it is a swap, of
// distance frontier - stage; going above it is a forward jump.
struct SkipRules {
  int32_t max_swap_distance = 1;
  int32_t max_total_swap_distance = 2;
  int32_t max_swaps = 2;
  int32_t max_forward_jump = 4;
};

// What a message occupies on its way from one node to another, from when it
// leaves. Messages enter in the order in which they are ready.
struct SkipLink {
  struct Channel {
    int32_t number = -1;  // negative: none
    double busy_s = 0;
  };
  // The link itself.
  double busy_s = 0;
  // What it shares with other links: a machine's network card, the link of
  // several nodes' machines. A message enters them together.
  std::array<Channel, 2> channels;
};

struct SkipInstance {
  // groups[stage]: nodes that hold the stage. Every node is in one group.
  std::vector<std::vector<int32_t>> groups;
  // [node]: seconds of one microbatch's forward.
  std::vector<double> forward_s;
  // transfer_s[sender][receiver]: latency + bytes / bandwidth + overhead.
  std::vector<std::vector<double>> transfer_s;
  // links[sender][receiver]. Empty: links carry any number of messages at once.
  std::vector<std::vector<SkipLink>> links;
  // [node]: seconds of a backward, and of the loss where the node is a data
  // node. Empty: so many times the forward's.
  std::vector<double> backward_s;
  std::vector<double> loss_s;
  double backward_over_forward = 1.5;
  double loss_over_forward = 0.25;
  // A node rests so long after each task; the task's message leaves before.
  double gap_s = 0;
  // Stages that each microbatch visits, stage 0 included.
  int32_t path_length = 0;
  // Microbatches of each node in group 0.
  int32_t microbatches_per_data_node = 0;
  // Microbatches that a node can hold, each from its forward's start to its
  // backward's end (TC1); 0: any number.
  int32_t slots_per_node = 0;
  // Microbatches that may pass through a node in the step; 0: any number. The
  // published planner gives all nodes outside group 0 the same number.
  int32_t max_visits_per_node = 0;
  // Nodes that no path may visit (lost ones); none of group 0.
  std::vector<int32_t> idle;
  // Every stage but 0 serves as many microbatches as any other (CC2); stages
  // whose nodes are all idle serve none.
  bool equal_stage_visits = true;
  SkipRules rules;

  int32_t num_nodes() const { return static_cast<int32_t>(forward_s.size()); }
  int32_t num_stages() const { return static_cast<int32_t>(groups.size()); }
  int32_t num_data_nodes() const {
    return groups.empty() ? 0 : static_cast<int32_t>(groups[0].size());
  }
  int32_t num_microbatches() const {
    return num_data_nodes() * microbatches_per_data_node;
  }
  int32_t tasks_per_microbatch() const { return 2 * path_length + 1; }
};

// The data node of microbatch m: microbatches are numbered data node by data
// node, in the order of groups[0].
int32_t DataNodeOf(const SkipInstance& instance, int32_t microbatch);

// Whether no path may visit the node.
bool IsIdle(const SkipInstance& instance, int32_t node);

// [stage]: has a node that paths may visit.
std::vector<bool> LiveStages(const SkipInstance& instance);

// Whether all live stages but 0 can be visited equally often.
bool VisitsDivide(const SkipInstance& instance);
// How often then; else rounded down.
int32_t VisitsPerStage(const SkipInstance& instance);

double BackwardSeconds(const SkipInstance& instance, int32_t node);
double LossSeconds(const SkipInstance& instance, int32_t node);

// stage_of[node].
std::vector<int32_t> StageOfNodes(const SkipInstance& instance);

// That the sizes agree, figures are not negative and every node is in one
// group. InvalidArgument with the field.
absl::Status CheckInstance(const SkipInstance& instance);

// Nodes visited by a microbatch, path[0] its data node.
using NodePath = std::vector<int32_t>;

// Task t (0 .. 2 L) of a path: where it runs and for how long.
int32_t TaskNode(const NodePath& path, int32_t task);
double TaskSeconds(const SkipInstance& instance, const NodePath& path,
                   int32_t task);
inline bool IsForwardTask(int32_t path_length, int32_t task) {
  return task < path_length;
}
inline bool IsBackwardTask(int32_t path_length, int32_t task) {
  return task > path_length;
}

// Seconds of the microbatch alone: with the usual ratios 2.5 sum(w) + 0.25 w_0
// + 2 sum(d), the edge back to the data node included.
double SoloSeconds(const SkipInstance& instance, const NodePath& path);

// The stages that a path has visited so far, as the rules see them; the first
// is 0.
struct StageVisits {
  uint64_t visited = 1;  // a bit for each
  int32_t frontier = 0;
  int32_t swaps = 0;
  int32_t distance = 0;
};
// Goes on to another stage, if the rules allow that.
bool VisitStage(const SkipRules& rules, int32_t stage, StageVisits& visits);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PARTIAL_INSTANCE_H_
