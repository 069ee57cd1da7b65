// What the units of an offloaded plan take and hold.
//
// A copy takes bytes over the rate that each of a node's devices has while the
// others copy too. On the host an optimizer step reads gradient, weight and
// moments and writes the latter two back (28 bytes a parameter in fp32), at the
// rate of the node's memory, which its devices' processes share. Gradients of
// one microbatch are added to those before it there: two values read, one
// written, beside the copy of the next.

#include <algorithm>

#include "scheduler/costs/plan_costs.h"

namespace trireme {

void PlanCoster::DivideIntoUnits(int32_t replica, int32_t stage,
                                 const StageTimes& times,
                                 PlanCosts& costs) const {
  const auto [pp, index] = stages_[stage];
  const int32_t node = SlowestNode(replica, pp);
  const ClusterDevice& device = cluster_.DeviceOfNode(node);
  const double host_bytes_per_s =
      cluster_.nodes[node].host_memory_bytes_per_s / cluster_.nodes[node].count;
  const int64_t block = BlockParametersOnRank();
  const auto parameters = static_cast<double>(block);
  const auto gradients =
      parameters * static_cast<double>(model_.gradient_bytes);
  // Where weights are bf16, the optimizer's state has a copy to update.
  const int64_t master = model_.element_bytes > 2 ? model_.element_bytes : 0;
  const double updated = static_cast<double>(
      model_.gradient_bytes + 2 * (model_.optimizer_bytes + master));
  UnitCost unit;
  unit.fetch_s = parameters * static_cast<double>(model_.element_bytes) /
                 device.to_device_bytes_per_s;
  unit.save_gradients_s = gradients / device.to_host_bytes_per_s;
  if (plan_.microbatches() > 1) {
    unit.save_gradients_s =
        std::max(unit.save_gradients_s, 3 * gradients / host_bytes_per_s);
  }
  unit.update_s = parameters * updated / host_bytes_per_s;

  ChunkCost& chunk = costs.cost.chunks[pp][index];
  const auto blocks = static_cast<size_t>(plan_.stages(stage).blocks());
  const auto recomputed = static_cast<size_t>(BlocksOf(stage).first);
  double forward = 0, backward = 0;
  for (size_t i = 0; i < blocks; ++i) {
    const BlockTime& time = i < recomputed ? times.again : times.kept;
    unit.forward_s = time.forward_s;
    unit.backward_s = time.backward_s;
    chunk.units.push_back(unit);
    forward += unit.forward_s;
    backward += unit.backward_s;
  }
  chunk.units.front().forward_s += times.embedding.forward_s;
  chunk.units.back().backward_s += times.head.backward_s;
  // The head, and what messages cost the chunk.
  chunk.units.back().forward_s +=
      std::max(0.0, chunk.forward_s - forward - times.embedding.forward_s);
  chunk.units.front().backward_s +=
      std::max(0.0, chunk.backward_s - backward - times.head.backward_s);
  // The embedding's and head's own update, on the device, is over before.
  chunk.update_s = unit.update_s;
  costs.host_bytes[pp] +=
      static_cast<int64_t>(blocks) * block *
      (model_.element_bytes + model_.gradient_bytes + model_.optimizer_bytes);
}

void PlanCoster::OffloadMemory(int32_t pp, RankMemory& memory) const {
  const int64_t block = BlockParametersOnRank();
  int64_t blocks = 0;
  for (int32_t stage = 0; stage < static_cast<int32_t>(stages_.size());
       ++stage) {
    if (stages_[stage].rank != pp) continue;
    const int64_t here = plan_.stages(stage).blocks();
    blocks += here;
    ChunkMemory& chunk = memory.chunks[stages_[stage].chunk];
    int64_t of_ends = chunk.activation_bytes;
    for (int64_t i = 0; i < here; ++i) {
      const int64_t bytes = BlockActivationBytes(i < DroppingBlocks(stage));
      of_ends -= bytes;
      chunk.units.push_back({.parameter_bytes = block * model_.element_bytes,
                             .activation_bytes = bytes});
    }
    // What embedding and head keep, from the first unit on.
    chunk.units.front().activation_bytes += of_ends;
  }
  memory.always.parameters -= blocks * block * model_.element_bytes;
  memory.always.optimizer -= blocks * block * model_.optimizer_bytes;
  memory.always.gradients -=
      std::max<int64_t>(0, blocks - Offload::kGradientBuffers) * block *
      model_.gradient_bytes;
}

}  // namespace trireme
