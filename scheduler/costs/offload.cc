// What the units of an offloaded plan take and hold: what they have of frozen
// parameters, and what trains where that leaves the device too.
//
// Inputs of blocks that leave are what FULL recomputation keeps. The host has
// them in buffers that the Program's order tells the number of
// (InputBytesOnHost); on the device they take what the blocks at work have,
// and, unit-major, what waits between two blocks of each microbatch.
//
// A copy takes bytes over the rate that each of a node's devices has while the
// others copy too. On the host an optimizer step reads gradient, weight and
// moments and writes the latter two back (28 bytes a parameter in fp32), and a
// copy in bf16 where weights are (30), at the rate of the node's memory, which
// its devices' processes share; what it takes for embedding and head on the
// device is left out. Where there are several microbatches, a gradient buffer
// that leaves has come in as well: each adds to what those before it left, if
// not all add before it leaves.
//
// Ranks that share blocks keep and copy their shares; a copy in is followed by
// the gather of the others' shares, one out comes after the sum over the ranks.
// Where gradients are not sharded all of them leave until a step's last
// microbatch, of which the sum is.
//
// The first device_blocks of each stage stay: they take of the device what they
// do without offload, their updates included, which a step's forwards have
// between them, and neither copies nor memory of the host. Where parameters are
// sharded, each backward's gradients of theirs go to their shards beside the
// copies, as those of blocks that leave.
//
// Optimizer states that lie on a drive are read and written once a step, beside
// the updates and at the same time: the slower of the three counts. They take
// the host's memory of the buffers that they pass through. So do blocks that
// lie there; they are written with the states, and a copy to the device takes
// as long as its block's share of the step's reads at least, as they are read
// ahead in turn.

#include <algorithm>
#include <vector>

#include "scheduler/costs/plan_costs.h"
#include "scheduler/plan/plan.h"
#include "scheduler/schedules/schedule.h"

namespace trireme {

namespace {

// Of a gradient, on its way to where it is summed.
double GradientBytes(const Plan& plan, const ModelShape& model) {
  return plan.bf16_gradient_messages()
             ? 2.0
             : static_cast<double>(model.gradient_bytes);
}

}  // namespace

int64_t PlanCoster::LeavingParameters(int32_t kind) const {
  return model_.trained_leaves ? pieces_.blocks[kind].parameters : 0;
}

int64_t PlanCoster::SharedParameters(int32_t kind) const {
  return model_.trained_leaves
             ? Shardable(pieces_.blocks[kind].parameters,
                         pieces_.blocks[kind].expert_parameters)
             : 0;
}

int64_t PlanCoster::OwnLeavingParameters(int32_t kind,
                                         Plan::Sharding from) const {
  const int64_t shared = SharedParameters(kind);
  const int64_t all = LeavingParameters(kind);
  return plan_.sharding() >= from
             ? all - shared + CeilDivide(shared, plan_.shard_group())
             : all;
}

int64_t PlanCoster::StayingBlocks(int64_t before, int64_t count) const {
  return std::clamp<int64_t>(plan_.offload().device_blocks() - before, 0,
                             count);
}

int64_t PlanCoster::StayingParameters(int32_t stage) const {
  int64_t parameters = StageParameters(stage), before = 0;
  for (const StageBlocks& blocks : BlocksOf(stage)) {
    if (!plan_.has_offload()) break;
    parameters -= (blocks.count() - StayingBlocks(before, blocks.count())) *
                  LeavingParameters(blocks.kind);
    before += blocks.count();
  }
  return parameters;
}

double PlanCoster::GatherSeconds(int32_t kind, const StageRings& rings) const {
  if (plan_.sharding() == Plan::REPLICATED) return 0;
  return rings.shards.slowest.AllGather(
      static_cast<double>(SharedParameters(kind) * model_.element_bytes));
}

double PlanCoster::SumSeconds(int32_t kind, const StageRings& rings) const {
  const double element_bytes = GradientBytes(plan_, model_);
  const auto shared = static_cast<double>(SharedParameters(kind));
  const double bytes = shared * element_bytes;
  // Whole gradients are summed with the last microbatch's, and so is what
  // follows the sums of shards.
  const double sums_of_a_microbatch =
      ScheduleOf(plan_).unit_major ? 1.0 : 1.0 / plan_.microbatches();
  // Of experts, which ep divides in place of sharding.
  const double whole = static_cast<double>(LeavingParameters(kind)) - shared;
  double seconds =
      whole == 0 ? 0
                 : sums_of_a_microbatch *
                       rings.experts.slowest.AllReduce(whole * element_bytes);
  if (plan_.sharding() == Plan::REPLICATED) {
    return seconds +
           sums_of_a_microbatch * rings.reduction.slowest.AllReduce(bytes);
  }
  seconds += rings.shards.slowest.ReduceScatter(bytes) *
             (plan_.sharding() < Plan::GRADIENTS ? sums_of_a_microbatch : 1);
  if (SumsShardCopies()) {
    seconds += sums_of_a_microbatch *
               rings.reduction.slowest.AllReduce(
                   bytes / static_cast<double>(plan_.shard_group()));
  }
  return seconds;
}

int64_t PlanCoster::LeavingInputBytes(int32_t kind) const {
  return plan_.offload().activations()
             ? BlockActivationBytes(kind, /*dropped=*/true)
             : 0;
}

int64_t PlanCoster::LeavingBytes(int32_t kind) const {
  return LeavingParameters(kind) * model_.element_bytes +
         pieces_.blocks[kind].frozen_bytes;
}

double PlanCoster::ReadsOfACopy(int64_t units) const {
  const int64_t held = plan_.offload().nvme().host_units();
  if (held == 0 || units <= held) return 0;
  // As a device with k places copies 2 (N - k) of N units in a pass forward and
  // back, a host with h reads 2 (N - h); what a step has updated is there when
  // it is first copied.
  const int64_t passes =
      ScheduleOf(plan_).unit_major ? 1 : int64_t{plan_.microbatches()};
  const int64_t resident =
      std::min<int64_t>(units, plan_.offload().resident_units());
  const int64_t halves = 2 * passes - (model_.trained_leaves ? 1 : 0);
  const int64_t copies = 2 * passes * (units - resident) + resident;
  const int64_t reads = halves * (units - held);
  return std::min(1.0,
                  static_cast<double>(reads) / static_cast<double>(copies));
}

void PlanCoster::DivideIntoUnits(int32_t replica, int32_t stage,
                                 const StageTimes& times,
                                 PlanCosts& costs) const {
  const auto [pp, index] = stages_[stage];
  const int32_t node = SlowestNode(replica, pp);
  const ClusterDevice& device = cluster_.DeviceOfNode(node);
  const double host_bytes_per_s =
      cluster_.nodes[node].host_memory_bytes_per_s / cluster_.nodes[node].count;
  const bool on_drive = plan_.offload().has_nvme();
  const bool weights_on_drive = plan_.offload().nvme().host_units() > 0;
  const int64_t units =
      BlocksOfRanks(plan_)[pp] -
      plan_.offload().device_blocks() * int64_t{plan_.chunks_per_rank()};
  const double reads = ReadsOfACopy(units);
  const double drive_bytes_per_s =
      cluster_.nodes[node].drive_bytes_per_s / cluster_.nodes[node].count;
  ChunkCost& chunk = costs.cost.chunks[pp][index];
  double forward = 0, backward = 0;
  int64_t on_host = 0, largest = 0, largest_weights = 0, before = 0;
  for (const StageBlocks& blocks : BlocksOf(stage)) {
    const int64_t stay = StayingBlocks(before, blocks.count());
    const int64_t leave = blocks.count() - stay;
    before += blocks.count();
    const int64_t trained = OwnLeavingParameters(blocks.kind, Plan::OPTIMIZER);
    const int64_t weights =
        LeavingBytes(blocks.kind) -
        (LeavingParameters(blocks.kind) - trained) * model_.element_bytes;
    const auto parameters = static_cast<double>(trained);
    const bool once = plan_.microbatches() == 1 || ScheduleOf(plan_).unit_major;
    // That a microbatch's copy carries, and that the host keeps.
    const int64_t kept_gradients =
        OwnLeavingParameters(blocks.kind, Plan::GRADIENTS) *
        model_.gradient_bytes;
    const auto gradients = static_cast<double>(
        once ? trained * model_.gradient_bytes : kept_gradients);
    UnitCost leaving;
    leaving.fetch_s = static_cast<double>(weights) *
                          std::max(1 / device.to_device_bytes_per_s,
                                   reads > 0 ? reads / drive_bytes_per_s : 0) +
                      GatherSeconds(blocks.kind, (*rings_)[pp]);
    leaving.save_gradients_s = gradients / device.to_host_bytes_per_s +
                               SumSeconds(blocks.kind, (*rings_)[pp]);
    if (!once) {
      leaving.save_gradients_s += gradients / device.to_device_bytes_per_s;
    }
    leaving.update_s = parameters * UpdatedBytes() / host_bytes_per_s;
    if (on_drive) {
      const int64_t moved = model_.optimizer_bytes +
                            (weights_on_drive ? model_.element_bytes : 0);
      leaving.update_s =
          std::max(leaving.update_s,
                   parameters * static_cast<double>(moved) / drive_bytes_per_s);
    }
    // Whole weights come of shards when they are used, or once they are
    // updated; the device updates them in time in which it computes nothing
    // else.
    UnitCost staying;
    (ShardsParameters() ? staying.fetch_s : staying.update_s) =
        GatherSeconds(blocks.kind, (*rings_)[pp]);
    if (ShardsParameters() && trained > 0) {
      staying.save_gradients_s = (*rings_)[pp].shards.slowest.ReduceScatter(
          static_cast<double>(SharedParameters(blocks.kind)) *
          GradientBytes(plan_, model_));
    }
    const double device_update_s =
        trained > 0 ? BucketUpdateSeconds(parameters, node) : 0;
    if (leave > 0) {
      largest = std::max(largest, trained);
      largest_weights = std::max(largest_weights, weights);
    }
    const int64_t states = trained * model_.optimizer_bytes;
    on_host += leave * ((weights_on_drive ? 0 : weights) + kept_gradients +
                        (on_drive ? 0 : states));
    if (on_drive) {
      costs.drive_bytes[pp] +=
          leave * (states + (weights_on_drive ? weights : 0));
    }
    for (int64_t i = 0; i < blocks.count(); ++i) {
      UnitCost unit = i < stay ? staying : leaving;
      const BlockTime& time = i < blocks.again
                                  ? times.blocks->again[blocks.kind]
                                  : times.blocks->kept[blocks.kind];
      const auto input = static_cast<double>(
          i < blocks.again ? LeavingInputBytes(blocks.kind) : 0);
      unit.save_activation_s = input / device.to_host_bytes_per_s;
      unit.load_activation_s = input / device.to_device_bytes_per_s;
      unit.forward_s = time.forward_s;
      if (i < stay) unit.forward_s += device_update_s / plan_.microbatches();
      unit.backward_s = time.backward_s;
      chunk.units.push_back(unit);
      forward += time.forward_s;
      backward += unit.backward_s;
    }
  }
  chunk.units.front().forward_s += times.embedding.forward_s;
  chunk.units.back().backward_s += times.head.backward_s;
  // The head, and what messages cost the chunk.
  chunk.units.back().forward_s +=
      std::max(0.0, chunk.forward_s - forward - times.embedding.forward_s);
  chunk.units.front().backward_s +=
      std::max(0.0, chunk.backward_s - backward - times.head.backward_s);
  costs.host_bytes[pp] += on_host;
  if (on_drive && index == 0) {
    const int64_t bucket =
        std::min(largest, static_cast<int64_t>(plan_.gradient_bucket_bytes()) /
                              model_.gradient_bytes);
    costs.host_bytes[pp] +=
        Offload::kStateBuffers * bucket * model_.optimizer_bytes +
        std::min<int64_t>(units, plan_.offload().nvme().host_units()) *
            largest_weights;
  }
}

void PlanCoster::OffloadMemory(int32_t pp, RankMemory& memory) const {
  MemoryBytes& always = memory.always;
  int64_t buffered = 0, widest = 0, ends = 0, largest_stays = 0;
  std::vector<int64_t> of_blocks;
  for (int32_t stage = 0; stage < static_cast<int32_t>(stages_.size());
       ++stage) {
    if (stages_[stage].rank != pp) continue;
    ends += StayingParameters(stage);
    ChunkMemory& chunk = memory.chunks[stages_[stage].chunk];
    int64_t of_ends = chunk.activation_bytes, before = 0;
    for (const StageBlocks& blocks : DroppingBlocksOf(stage)) {
      const int64_t stay = StayingBlocks(before, blocks.count());
      const int64_t leave = blocks.count() - stay;
      before += blocks.count();
      const int64_t trained = LeavingParameters(blocks.kind);
      const int64_t bytes_of_weights = LeavingBytes(blocks.kind);
      // Those that stay are gathered block by block, if at all.
      ends -= stay * trained;
      if (stay > 0) largest_stays = std::max(largest_stays, trained);
      const int64_t gathered =
          ShardsParameters() ? trained * model_.element_bytes : 0;
      // What the rank had of them while they were there.
      const auto own = [&](Plan::Sharding from) {
        return leave * OwnLeavingParameters(blocks.kind, from);
      };
      always.parameters -= own(Plan::PARAMETERS) * model_.element_bytes +
                           leave * pieces_.blocks[blocks.kind].frozen_bytes;
      always.gradients -= own(Plan::GRADIENTS) * model_.gradient_bytes;
      always.optimizer -= own(Plan::OPTIMIZER) * model_.optimizer_bytes;
      // Sums of shards have a buffer beside what is summed.
      of_blocks.insert(
          of_blocks.end(), leave,
          trained + (plan_.sharding() >= Plan::GRADIENTS
                         ? OwnLeavingParameters(blocks.kind, Plan::GRADIENTS)
                         : 0));
      for (int64_t i = 0; i < blocks.count(); ++i) {
        const int64_t bytes =
            BlockActivationBytes(blocks.kind, i < blocks.again);
        const int64_t input =
            i < blocks.again ? LeavingInputBytes(blocks.kind) : 0;
        of_ends -= bytes;
        widest = std::max(widest, input);
        chunk.units.push_back(
            {.parameter_bytes = i < stay ? gathered : bytes_of_weights,
             .activation_bytes = bytes,
             .input_bytes = input});
      }
    }
    // What embedding and head keep, from the first unit on.
    chunk.units.front().activation_bytes += of_ends;
  }
  if (ScheduleOf(plan_).unit_major) {
    memory.always.activations += plan_.microbatches() * widest;
  }
  // Gradients of the largest units are in the buffers.
  std::sort(of_blocks.rbegin(), of_blocks.rend());
  for (size_t i = 0; i < of_blocks.size() && i < Offload::kGradientBuffers;
       ++i) {
    buffered += of_blocks[i];
  }
  always.gradients += buffered * model_.gradient_bytes;
  if (!model_.trained_leaves) return;
  // Blocks are gathered into their places and reduced where they leave from.
  always.communication = 0;
  if (plan_.sharding() == Plan::PARAMETERS) {
    always.communication += ends * model_.element_bytes;
  }
  if (plan_.sharding() >= Plan::GRADIENTS) {
    always.communication += (ends + largest_stays) * model_.gradient_bytes;
  }
  // Shares of a whole model are no sums of shares of blocks.
  for (int64_t* bytes :
       {&always.parameters, &always.gradients, &always.optimizer}) {
    *bytes = std::max<int64_t>(0, *bytes);
  }
}

}  // namespace trireme
