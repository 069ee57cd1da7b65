#include "scheduler/search/division_bounds.h"

#include <algorithm>

namespace trireme {
namespace {

// By how much each part of a finer split's piece was measured to be faster than
// of a coarser one's; at least 1.
double MeasuredGain(const ModelShape& model) {
  double gain = 1;
  const auto share = [](const MeasuredPiece& piece) {
    return static_cast<double>(piece.microbatch_size) /
           static_cast<double>(piece.tp * piece.cp);
  };
  const auto of_a_part = [&](const MeasuredPiece& piece) {
    return (piece.forward_s + piece.backward_s) / share(piece);
  };
  for (const MeasuredPiece& coarse : model.measured) {
    for (const MeasuredPiece& fine : model.measured) {
      if (coarse.piece != fine.piece || coarse.device != fine.device ||
          fine.tp % coarse.tp != 0 || fine.cp % coarse.cp != 0 ||
          share(fine) > share(coarse)) {
        continue;
      }
      gain = std::max(gain, of_a_part(coarse) / of_a_part(fine));
    }
  }
  return gain;
}

}  // namespace

DivisionBounds::DivisionBounds(const ModelShape& model)
    : measured_gain_(MeasuredGain(model)) {}

void DivisionBounds::Add(const Candidate& candidate, const Plan& plan,
                         const PlanCosts& costs) {
  Seconds seconds;
  for (size_t pp = 0; pp < costs.cost.chunks.size(); ++pp) {
    for (size_t i = 0; i < costs.cost.chunks[pp].size(); ++i) {
      const ChunkCost& chunk = costs.cost.chunks[pp][i];
      const ChunkParts& parts = costs.parts[pp][i];
      const double others_s = parts.cp_s + parts.ep_s;
      seconds.arithmetic_s += chunk.forward_s + chunk.backward_s -
                              parts.recompute_s - parts.dp_s - parts.tp_s -
                              others_s;
      seconds.bytes_over_tp_s += std::max(0.0, parts.tp_s - parts.tp_latency_s);
      seconds.over_tp_s += parts.tp_s;
      seconds.others_s += others_s;
    }
  }
  auto [found, is_new] =
      known_.try_emplace({candidate.tp, candidate.cp, plan.sequence_parallel(),
                          candidate.microbatch_size},
                         seconds);
  if (is_new) return;
  Seconds& least = found->second;
  for (double Seconds::*part :
       {&Seconds::arithmetic_s, &Seconds::bytes_over_tp_s, &Seconds::over_tp_s,
        &Seconds::others_s}) {
    least.*part = std::min(least.*part, seconds.*part);
  }
}

double DivisionBounds::StepSeconds(const Candidate& candidate,
                                   int64_t global_batch) const {
  const double size = candidate.microbatch_size;
  const double share = size / (candidate.tp * candidate.cp);
  double microbatch_s = 0;
  for (const auto& [split, seconds] : known_) {
    const auto& [tp, cp, sequence_parallel, known_size] = split;
    if (candidate.tp % tp != 0 || candidate.cp % cp != 0) continue;
    if (tp > 1 && sequence_parallel != candidate.sequence_parallel) continue;
    const double part = share / (static_cast<double>(known_size) / (tp * cp));
    if (part > 1) continue;
    const bool same = candidate.tp == tp && candidate.cp == cp && part == 1;
    const double tokens = size / candidate.cp / (1.0 * known_size / cp);
    microbatch_s =
        std::max(microbatch_s,
                 part * (seconds.arithmetic_s / (same ? 1 : measured_gain_) +
                         seconds.others_s) +
                     tokens * (tokens > 1 ? seconds.bytes_over_tp_s
                                          : seconds.over_tp_s));
  }
  const auto microbatches = static_cast<double>(global_batch / candidate.dp /
                                                candidate.microbatch_size);
  return microbatches * microbatch_s / candidate.pp;
}

}  // namespace trireme
