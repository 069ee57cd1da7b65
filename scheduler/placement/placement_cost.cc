#include "scheduler/placement/placement_cost.h"

#include <algorithm>
#include <cmath>

#include "runtime/core/log.h"

namespace trireme {

PlacementCosts::PlacementCosts(const ModelShape& model,
                               const ClusterModel& cluster, const Plan& plan)
    : cluster_(cluster),
      dp_(static_cast<int32_t>(plan.grid().dp())),
      pp_(static_cast<int32_t>(plan.grid().pp())),
      microbatches_(plan.microbatches()),
      rings_(cluster, SumOrderOf(plan)) {
  const auto tp = static_cast<int32_t>(plan.grid().tp());
  const auto cp = static_cast<int32_t>(plan.grid().cp());
  auto fits = [&](int32_t ranks) {
    return std::all_of(
        cluster.nodes.begin(), cluster.nodes.end(),
        [&](const ClusterNode& node) { return node.count % ranks == 0; });
  };
  unit_ranks_ = fits(tp * cp) ? tp * cp : fits(tp) ? tp : 1;
  parts_ = tp * cp / unit_ranks_;
  units_per_stage_ = parts_ * dp_;

  Plan in_order = plan;
  in_order.clear_placement();
  for (int64_t rank = 0; rank < cluster.num_ranks(); ++rank) {
    in_order.add_placement(static_cast<uint32_t>(rank));
  }
  const PlanCoster coster(model, cluster, in_order);
  const PlanCosts costs = coster.CostsOf(0);
  double slowest = 0;
  arithmetic_s_.resize(cluster.devices.size(), std::vector<double>(pp_, 0.0));
  for (int32_t node = 0; node < cluster.num_nodes(); ++node) {
    std::vector<double>& stages = arithmetic_s_[cluster.nodes[node].device];
    if (stages.front() > 0) continue;  // another node has such devices
    for (int32_t pp = 0; pp < pp_; ++pp) {
      stages[pp] =
          coster.StageArithmetic(node, pp) / cluster.nodes[node].slowdown;
      slowest = std::max(slowest, stages[pp]);
    }
  }
  for (int32_t pp = 0; pp < pp_; ++pp) {
    double inside = 0;
    for (const ChunkParts& parts : costs.parts[pp]) {
      inside += parts.tp_s + (parts_ == 1 ? parts.cp_s : 0);
    }
    inside_s_.push_back(inside);
  }
  for (size_t pp = 0; pp < costs.cost.chunks.size(); ++pp) {
    double parameters =
        static_cast<double>(costs.memory.ranks[pp].always.optimizer) /
        static_cast<double>(model.optimizer_bytes);
    if (plan.sharding() != Plan::REPLICATED) {
      parameters *= static_cast<double>(plan.shard_group());
    }
    gradient_bytes_.push_back(
        parameters * (plan.bf16_gradient_messages()
                          ? 2.0
                          : static_cast<double>(model.gradient_bytes)));
    weight_bytes_.push_back(parameters *
                            static_cast<double>(model.element_bytes));
  }
  const BlockSplit split = SplitOf(plan);
  message_bytes_ = static_cast<double>(coster.message_bytes());
  round_trips_ = std::ceil(microbatches_ / pp_) * plan.chunks_per_rank();
  if (parts_ > 1) {
    const double blocks =
        static_cast<double>(model.layers) / static_cast<double>(pp_);
    // Elements that one rank sends for a block: 8 exchanges of 1/cp of its
    // tokens' heads, or six rounds of keys and values.
    const double sends = split.ulysses == split.cp
                             ? 8.0 / static_cast<double>(cp)
                             : 6.0 * (static_cast<double>(cp) - 1);
    cp_bytes_ = blocks * sends * message_bytes_;
  }
  switch (plan.sharding()) {
    case Plan::GRADIENTS:
      // Reduced in every microbatch, behind what is computed until the next.
      reductions_ = microbatches_;
      hidden_s_ = microbatches_ * slowest;
      break;
    case Plan::PARAMETERS:
      // Gathered forward and backward as well.
      reductions_ = microbatches_;
      gathers_ = 2 * microbatches_;
      hidden_s_ = microbatches_ * slowest;
      break;
    case Plan::OPTIMIZER:
      break;
    default:
      // An all-reduce is two reduce-scatters.
      reductions_ = 2;
      gathers_ = 0;
  }
  tried_.pipeline_s.resize(dp_);
  tried_.reduction_s.resize(pp_);
}

std::vector<int32_t> PlacementCosts::UnitsByReplica() const {
  std::vector<int32_t> units;
  for (int32_t dp = 0; dp < dp_; ++dp) {
    for (int32_t pp = 0; pp < pp_; ++pp) {
      for (int32_t part = 0; part < parts_; ++part) {
        units.push_back(UnitAt(part, dp, pp));
      }
    }
  }
  return units;
}

double PlacementCosts::PipelineCost(int32_t dp) const {
  double largest = 0, sum = 0, messages = 0;
  for (int32_t pp = 0; pp < pp_; ++pp) {
    double stage = 0, up = 0, down = 0, context = 0;
    for (int32_t part = 0; part < parts_; ++part) {
      const int32_t node = tried_.nodes[UnitAt(part, dp, pp)];
      const ClusterNode& here = cluster_.nodes[node];
      stage = std::max(stage, arithmetic_s_[here.device][pp] * here.slowdown);
      auto seconds = [&](int32_t from, int32_t to, double bytes) {
        const ClusterLink& link = cluster_.LinkBetweenNodes(from, to);
        // A unit's ranks send together; other units at other times.
        const int64_t flows = from == to ? 1 : unit_ranks_;
        return link.latency_s +
               bytes / (from == to ? link.BytesPerSecond(flows)
                                   : cluster_.BytesPerSecond(from, to, flows));
      };
      if (pp + 1 < pp_) {
        const int32_t next = tried_.nodes[UnitAt(part, dp, pp + 1)];
        up = std::max(up, seconds(node, next, message_bytes_));
        down = std::max(down, seconds(next, node, message_bytes_));
      }
      if (parts_ > 1) {
        const int32_t next = tried_.nodes[UnitAt((part + 1) % parts_, dp, pp)];
        if (next != node) {
          context = std::max(context, seconds(node, next, cp_bytes_));
        }
      }
    }
    stage += inside_s_[pp] + context;
    sum += stage;
    messages += up + down;
    // A link slower than its stage sets the pace.
    largest = std::max({largest, stage, up, down});
  }
  return (microbatches_ - 1) * largest + sum + round_trips_ * messages;
}

double PlacementCosts::ReductionCost(int32_t pp) {
  if (units_per_stage_ == 1) return 0;
  // Units stand for their ranks: the first device of the node will do.
  std::vector<int32_t> ranks(units_per_stage_);
  for (int32_t i = 0; i < units_per_stage_; ++i) {
    ranks[i] =
        cluster_.nodes[tried_.nodes[i + units_per_stage_ * pp]].first_rank;
  }
  std::vector<int64_t> flows(cluster_.num_nodes(), 0);
  int64_t most = 0;
  for (int32_t i = 0; i < units_per_stage_; ++i) {
    int64_t& here = flows[tried_.nodes[i + units_per_stage_ * pp]];
    here += unit_ranks_;
    most = std::max(most, here);
  }
  const RingCost ring = rings_.RingOf(ranks, most);
  return std::max(0.0, reductions_ * ring.ReduceScatter(gradient_bytes_[pp]) +
                           gathers_ * ring.AllGather(weight_bytes_[pp]) -
                           hidden_s_);
}

double PlacementCosts::Total() const {
  return *std::max_element(tried_.pipeline_s.begin(), tried_.pipeline_s.end()) +
         *std::max_element(tried_.reduction_s.begin(),
                           tried_.reduction_s.end());
}

double PlacementCosts::Set(const std::vector<int32_t>& nodes) {
  CHECK_EQ(static_cast<int32_t>(nodes.size()), num_units());
  tried_.nodes = nodes;
  for (int32_t dp = 0; dp < dp_; ++dp) {
    tried_.pipeline_s[dp] = PipelineCost(dp);
  }
  for (int32_t pp = 0; pp < pp_; ++pp) {
    tried_.reduction_s[pp] = ReductionCost(pp);
  }
  Keep();
  return Total();
}

double PlacementCosts::Try(const std::vector<int32_t>& nodes) {
  std::vector<bool> replicas(dp_, false), stages(pp_, false);
  for (int32_t unit = 0; unit < num_units(); ++unit) {
    if (nodes[unit] == tried_.nodes[unit]) continue;
    replicas[unit / parts_ % dp_] = true;
    stages[unit / units_per_stage_] = true;
  }
  tried_.nodes = nodes;
  for (int32_t dp = 0; dp < dp_; ++dp) {
    if (replicas[dp]) tried_.pipeline_s[dp] = PipelineCost(dp);
  }
  for (int32_t pp = 0; pp < pp_; ++pp) {
    if (stages[pp]) tried_.reduction_s[pp] = ReductionCost(pp);
  }
  return Total();
}

}  // namespace trireme
