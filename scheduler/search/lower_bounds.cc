#include "scheduler/search/lower_bounds.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "scheduler/schedules/schedule.h"

namespace trireme {

namespace {

// Of each rank, with offload: its copies, in each pass through a chunk of the
// units that were not there already, and of everything's gradients; and the
// updates with which its list begins, as all backwards come after the last.
double OffloadSeconds(const Plan& plan, const PlanCosts& costs) {
  const double passes = ScheduleOf(plan).unit_major
                            ? 1
                            : static_cast<double>(plan.microbatches());
  double longest = 0;
  for (const std::vector<ChunkCost>& chunks : costs.cost.chunks) {
    double in = 0, out = 0, host = 0;
    for (const ChunkCost& chunk : chunks) {
      host += plan.microbatches() * chunk.backward_s;
      double shortest = std::numeric_limits<double>::infinity();
      for (const UnitCost& unit : chunk.units) {
        shortest = std::min(shortest, unit.fetch_s);
        out += passes * unit.save_gradients_s;
        host += unit.update_s;
      }
      const int64_t missing = static_cast<int64_t>(chunk.units.size()) -
                              plan.offload().resident_units();
      if (missing > 0) {
        in += 2 * passes * static_cast<double>(missing) * shortest;
      }
    }
    longest = std::max({longest, in, out, host});
  }
  return longest;
}

}  // namespace

double StepLowerBound(const Plan& plan, const PlanCosts& costs) {
  const std::vector<StageLocation> stages = StagesOf(plan);
  const bool halves = ScheduleOf(plan).splits_backward;
  std::vector<double> work(plan.grid().pp(), 0.0);
  std::vector<double> update(plan.grid().pp(), 0.0);
  for (size_t stage = 0; stage < stages.size(); ++stage) {
    const auto [rank, index] = stages[stage];
    const ChunkCost& chunk = costs.cost.chunks[rank][index];
    work[rank] += plan.microbatches() * (chunk.forward_s + chunk.backward_s);
    // With offload they are under the forward.
    if (!plan.has_offload()) {
      update[rank] += costs.buckets[stage] * chunk.update_s;
    }
  }
  double bound = 0, before = 0;
  std::vector<bool> seen(work.size(), false);
  for (const auto& [rank, index] : stages) {
    const ChunkCost& chunk = costs.cost.chunks[rank][index];
    if (!seen[rank]) {
      // A rank's first stage has nothing to do before the forwards of the
      // stages before it; and, where weight gradients are not put off, their
      // backwards follow its last.
      bound = std::max(bound, before + work[rank]);
      seen[rank] = true;
    }
    before += chunk.forward_s + (halves ? 0 : chunk.backward_s);
  }
  if (plan.has_offload()) bound = std::max(bound, OffloadSeconds(plan, costs));
  return bound + *std::max_element(update.begin(), update.end());
}

double LikelySeconds(const Plan& plan, const PlanCosts& costs) {
  double seconds = StepLowerBound(plan, costs);
  const size_t ranks = costs.cost.chunks.size();
  for (size_t pp = 0; pp + 1 < ranks && !costs.cost.links.empty(); ++pp) {
    for (const size_t at : {pp * ranks + pp + 1, (pp + 1) * ranks + pp}) {
      const LinkCost& link = costs.cost.links[at];
      seconds += (link.latency_s +
                  static_cast<double>(costs.cost.chunks[pp][0].message_bytes) /
                      link.bytes_per_s) *
                 plan.microbatches() / static_cast<double>(ranks) *
                 plan.chunks_per_rank();
    }
  }
  std::vector<double> exposed(ranks, 0.0);
  const std::vector<StageLocation> stages = StagesOf(plan);
  for (size_t stage = 0; stage < stages.size(); ++stage) {
    const auto [pp, index] = stages[stage];
    const ChunkCost& chunk = costs.cost.chunks[pp][index];
    const auto buckets = static_cast<double>(costs.buckets[stage]);
    exposed[pp] +=
        std::max(chunk.reduce_s, buckets * chunk.reduce_s - chunk.backward_s) +
        std::max(0.0, buckets * chunk.gather_s - chunk.forward_s);
  }
  return seconds + *std::max_element(exposed.begin(), exposed.end());
}

namespace {

// The last bucket of a rank's gradients leaves after its last backward of
// `last_s` seconds; the first after 1/B of it, and the others follow.
double ReductionTail(const ChunkCost& chunk, double last_s, int32_t buckets) {
  return std::max(chunk.reduce_s,
                  buckets * chunk.reduce_s - last_s * (1 - 1.0 / buckets));
}

// The bound of one pipeline with its messages.
class PipelineBound {
 public:
  PipelineBound(const Plan& plan, const PlanCosts& costs,
                const std::vector<int32_t>& in_flight)
      : plan_(plan),
        costs_(costs),
        stages_(StagesOf(plan)),
        in_flight_(in_flight),
        halves_(ScheduleOf(plan).splits_backward),
        n_(plan.microbatches()),
        forward_path_(stages_.size(), 0.0),
        backward_path_(stages_.size(), 0.0) {
    for (size_t stage = 0; stage + 1 < stages_.size(); ++stage) {
      const ChunkCost& chunk = ChunkOf(stage);
      forward_path_[stage + 1] =
          forward_path_[stage] + chunk.forward_s + MessageSeconds(stage, true);
      backward_path_[stage + 1] = backward_path_[stage] + InputSeconds(chunk) +
                                  MessageSeconds(stage, false);
    }
  }

  double Seconds() const {
    double clip = 0, end = 0;
    std::vector<bool> seen(costs_.cost.chunks.size(), false);
    for (size_t stage = 0; stage < stages_.size(); ++stage) {
      const int32_t rank = stages_[stage].rank;
      // A rank's first stage is the first to start and the last to end on it.
      if (seen[rank]) continue;
      seen[rank] = true;
      clip = std::max(clip, EndOfWork(stage));
      end = std::max(end, UpdateSeconds(rank));
    }
    if (plan_.chunks_per_rank() == 1) {
      for (size_t stage = 0; stage + 1 < stages_.size(); ++stage) {
        clip = std::max(clip, EndOfMessages(stage));
      }
    }
    if (plan_.has_offload()) {
      clip = std::max(clip, OffloadSeconds(plan_, costs_));
    }
    return clip + costs_.cost.clip_s + end;
  }

 private:
  const ChunkCost& ChunkOf(size_t stage) const {
    return costs_.cost.chunks[stages_[stage].rank][stages_[stage].chunk];
  }

  // What the stage below waits for.
  double InputSeconds(const ChunkCost& chunk) const {
    return halves_ ? chunk.backward_input_s : chunk.backward_s;
  }

  // Seconds that a message from a stage to the next, or back, occupies its
  // link, and until it has arrived.
  double LinkSeconds(size_t stage, bool up) const {
    const LinkCost& link = LinkOf(stage, up);
    return static_cast<double>(ChunkOf(stage).message_bytes) / link.bytes_per_s;
  }
  double MessageSeconds(size_t stage, bool up) const {
    if (stages_[stage].rank == stages_[stage + 1].rank) return 0;
    return LinkSeconds(stage, up) + LinkOf(stage, up).latency_s;
  }
  const LinkCost& LinkOf(size_t stage, bool up) const {
    const int32_t below = stages_[stage].rank;
    const int32_t above = stages_[stage + 1].rank;
    return costs_.cost.LinkBetween(up ? below : above, up ? above : below);
  }

  // Reductions of a rank after its last backward, at least.
  double TailOf(int32_t rank) const {
    double tail = std::numeric_limits<double>::infinity();
    for (size_t stage = 0; stage < stages_.size(); ++stage) {
      if (stages_[stage].rank != rank) continue;
      const ChunkCost& chunk = ChunkOf(stage);
      tail = std::min(
          tail, ReductionTail(
                    chunk, halves_ ? chunk.backward_weight_s : chunk.backward_s,
                    costs_.buckets[stage]));
    }
    return tail;
  }

  // When a rank's work, or what follows it below, is over.
  double EndOfWork(size_t stage) const {
    const int32_t rank = stages_[stage].rank;
    double work = 0, without_weights = 0;
    for (const ChunkCost& chunk : costs_.cost.chunks[rank]) {
      work += n_ * (chunk.forward_s + chunk.backward_s);
      without_weights += n_ * (chunk.forward_s + InputSeconds(chunk));
    }
    const double start = forward_path_[stage];
    double end = std::max(start + work + TailOf(rank),
                          start + without_weights + EndBelow(stage));
    if (plan_.chunks_per_rank() == 1) {
      // Of those between here and the last stage one must be back before the
      // next leaves.
      const double trips = std::ceil(n_ / in_flight_[rank]);
      end = std::max(end, start + trips * RoundTrip(stage) + EndBelow(stage));
    }
    return end;
  }

  // From the end of a stage's last backward until the first stage has reduced
  // its gradients.
  double EndBelow(size_t stage) const {
    const double weights = halves_ ? ChunkOf(0).backward_weight_s : 0;
    return backward_path_[stage] + weights + TailOf(stages_.front().rank);
  }

  double RoundTrip(size_t stage) const {
    const ChunkCost& last = ChunkOf(stages_.size() - 1);
    return forward_path_.back() - forward_path_[stage] + backward_path_.back() -
           backward_path_[stage] + last.forward_s + InputSeconds(last);
  }

  // Where a link, not the ranks at its ends, sets the pace.
  double EndOfMessages(size_t stage) const {
    const double up = forward_path_[stage + 1] +
                      (n_ - 1) * LinkSeconds(stage, true) +
                      RoundTrip(stage + 1) + MessageSeconds(stage, false);
    const double down = forward_path_[stage + 1] + RoundTrip(stage + 1) +
                        MessageSeconds(stage, false) +
                        (n_ - 1) * LinkSeconds(stage, false);
    return std::max(up, down) + InputSeconds(ChunkOf(stage)) + EndBelow(stage);
  }

  // After clipping updates follow each other, if they are not under the next
  // step's forward. Gathers may be hidden behind that.
  double UpdateSeconds(int32_t rank) const {
    if (plan_.has_offload()) return 0;
    double updates = 0;
    for (size_t stage = 0; stage < stages_.size(); ++stage) {
      if (stages_[stage].rank != rank) continue;
      updates += costs_.buckets[stage] * ChunkOf(stage).update_s;
    }
    return updates;
  }

  const Plan& plan_;
  const PlanCosts& costs_;
  const std::vector<StageLocation> stages_;
  const std::vector<int32_t>& in_flight_;
  const bool halves_;
  const double n_;
  // From the step's start until a stage's input can be there, and from the end
  // of its last backward until the gradient of the first stage's can start.
  std::vector<double> forward_path_;
  std::vector<double> backward_path_;
};

}  // namespace

double PlacedStepLowerBound(const Plan& plan, const PlanCosts& costs,
                            const std::vector<int32_t>& in_flight) {
  return PipelineBound(plan, costs, in_flight).Seconds();
}

double ArithmeticLowerBound(const ModelShape& model,
                            const ClusterModel& cluster, const Plan& plan) {
  const PlanCoster coster(model, cluster, plan);
  const auto pp = static_cast<int32_t>(plan.grid().pp());
  const double n = plan.microbatches();
  // Of a microbatch through the whole model on each device; and of the three
  // pieces the shares, which unlike devices have differently.
  std::vector<double> whole_s, block_s;
  double embedding = 1, head = 1, blocks = 1;
  const int32_t kinds = NumBlockKinds(model);
  for (int32_t node = 0; node < cluster.num_nodes(); ++node) {
    double whole = 0;
    for (int32_t i = 0; i < pp; ++i) whole += coster.StageArithmetic(node, i);
    const DeviceArithmetic pieces = coster.ArithmeticOn(node);
    const auto seconds_of = [&](const ModelPiece& piece) {
      return pieces.Of(piece).forward_s + pieces.Of(piece).backward_s;
    };
    const double first = seconds_of(ModelPiece::kEmbedding);
    const double last = seconds_of(ModelPiece::kHead);
    embedding = std::min(embedding, first / whole);
    head = std::min(head, last / whole);
    blocks = std::min(blocks, (whole - first - last) / whole);
    // Blocks may be unlike: as if all were the fastest.
    double block = (whole - first - last) / static_cast<double>(model.layers);
    for (int32_t kind = 0; kind < kinds && kinds > 1; ++kind) {
      block = std::min(block, seconds_of({ModelPiece::kBlock, kind}));
    }
    whole_s.insert(whole_s.end(), cluster.nodes[node].count, whole);
    block_s.insert(block_s.end(), cluster.nodes[node].count, block);
  }
  std::sort(whole_s.begin(), whole_s.end());
  std::sort(block_s.begin(), block_s.end());
  // A stage is as slow as its slowest device, hence like devices make the
  // fastest stages. Where a backward is one piece, a stage also waits while the
  // first microbatch passes those before it, and the last one those on its way
  // back: with unlike devices this holds for each replica alone.
  const bool waits =
      plan.chunks_per_rank() == 1 && !ScheduleOf(plan).splits_backward &&
      (plan.grid().dp() == 1 || whole_s.front() == whole_s.back());
  const size_t devices_per_stage = whole_s.size() / pp;
  const auto slowest = [&](const std::vector<double>& seconds, int32_t stage) {
    return seconds[(stage + 1) * devices_per_stage - 1];
  };
  double rate = 0, share = 1;
  for (int32_t i = 0; i < pp; ++i) {
    rate += share / slowest(whole_s, i);
    if (waits) share *= 1 - 1 / n;
  }
  const double shared_out = (embedding + head + blocks) * n / rate;
  // Blocks are whole.
  std::vector<int64_t> given(pp, 0);
  double largest = 0;
  for (int64_t block = 0; block < model.layers; ++block) {
    int32_t next = 0;
    for (int32_t i = 1; i < pp; ++i) {
      if (static_cast<double>(given[i] + 1) * slowest(block_s, i) <
          static_cast<double>(given[next] + 1) * slowest(block_s, next)) {
        next = i;
      }
    }
    ++given[next];
    largest = std::max(
        largest, static_cast<double>(given[next]) * slowest(block_s, next));
  }
  return std::max(shared_out, n * largest);
}

namespace {

// Those that are nowhere lower than either.
std::vector<RateShare> HigherShares(const std::vector<RateShare>& a,
                                    const std::vector<RateShare>& b) {
  const bool alike =
      std::equal(a.begin(), a.end(), b.begin(), b.end(),
                 [](const RateShare& x, const RateShare& y) {
                   return x.flops == y.flops && x.share == y.share;
                 });
  return alike ? a : std::vector<RateShare>();
}

}  // namespace

ClusterModel BestCase(const ClusterModel& cluster) {
  ClusterModel best = cluster;
  const auto take_faster = [](const ClusterLink& link, ClusterLink& fastest) {
    fastest.latency_s = std::min(fastest.latency_s, link.latency_s);
    fastest.bytes_per_s = std::max(fastest.bytes_per_s, link.bytes_per_s);
    fastest.shared_bytes_per_s =
        std::max(fastest.shared_bytes_per_s, link.shared_bytes_per_s);
  };
  ClusterNode& node = best.nodes.front();
  ClusterDevice& device = best.devices[node.device];
  ClusterLink link =
      cluster.num_nodes() > 1 ? cluster.LinkBetweenNodes(0, 1) : ClusterLink();
  // Of a node's host and drive, for each of its devices.
  double host_share = 0, drive_share = 0;
  for (int32_t i = 0; i < cluster.num_nodes(); ++i) {
    const ClusterNode& other = cluster.nodes[i];
    take_faster(other.link, node.link);
    if (other.island_devices > 0) take_faster(other.island_link, node.link);
    node.slowdown = std::min(node.slowdown, other.slowdown);
    node.card_bytes_per_s =
        std::max(node.card_bytes_per_s, other.card_bytes_per_s);
    host_share =
        std::max(host_share, other.host_memory_bytes_per_s / other.count);
    drive_share = std::max(drive_share, other.drive_bytes_per_s / other.count);
    const ClusterDevice& its = cluster.DeviceOfNode(i);
    for (double ClusterDevice::*rate : kDeviceRates) {
      device.*rate = std::max(device.*rate, its.*rate);
    }
    device.launch_s = std::min(device.launch_s, its.launch_s);
    device.product_shares =
        HigherShares(device.product_shares, its.product_shares);
    device.attention_shares =
        HigherShares(device.attention_shares, its.attention_shares);
    for (int32_t to = 0; to < cluster.num_nodes(); ++to) {
      if (to != i) take_faster(cluster.LinkBetweenNodes(i, to), link);
    }
  }
  // As fast as the fastest of those whose times were measured.
  device.name.clear();
  for (ClusterNode& other : best.nodes) {
    other.device = node.device;
    other.link = node.link;
    other.island_devices = 0;
    other.slowdown = node.slowdown;
    other.card_bytes_per_s = node.card_bytes_per_s;
    other.host_memory_bytes_per_s = host_share * other.count;
    other.drive_bytes_per_s = drive_share * other.count;
  }
  std::fill(best.node_links.begin(), best.node_links.end(), link);
  return best;
}

ClusterModel BestNode(const ClusterModel& cluster) {
  ClusterModel best = BestCase(cluster);
  ClusterNode& node = best.nodes.front();
  if (best.num_nodes() > 1) {
    const ClusterLink& between = best.LinkBetweenNodes(0, 1);
    node.link.latency_s = std::min(node.link.latency_s, between.latency_s);
    node.link.bytes_per_s =
        std::max(node.link.bytes_per_s, between.bytes_per_s);
  }
  // Fewer may share it where a group is on several nodes.
  node.link.shared_bytes_per_s = std::numeric_limits<double>::infinity();
  const auto devices = static_cast<double>(best.num_ranks());
  node.host_memory_bytes_per_s *= devices / node.count;
  node.drive_bytes_per_s *= devices / node.count;
  node.count = static_cast<int32_t>(best.num_ranks());
  best.nodes.resize(1);
  best.node_links.resize(1);
  best.node_of_rank.assign(best.num_ranks(), 0);
  best.shares_network = false;
  return best;
}

}  // namespace trireme
