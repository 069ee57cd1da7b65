// What the instructions of a Program cost: the simulator's input, measured or
// computed by whoever knows the hardware.

#ifndef TRIREME_SCHEDULER_SIMULATOR_COST_MODEL_H_
#define TRIREME_SCHEDULER_SIMULATOR_COST_MODEL_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "scheduler/program/instruction_costs.h"
#include "scheduler/program/program.h"

namespace trireme {

struct CostModel {
  // chunks[pipeline rank][chunk].
  std::vector<std::vector<ChunkCost>> chunks;
  // links[sender * ranks + receiver]; empty: `default_link` everywhere.
  std::vector<LinkCost> links;
  LinkCost default_link;
  // ClipGradients, once all ranks are there.
  double clip_s = 0;
  // Processors that the Program's ranks have between them, of which each
  // compute instruction takes one; 0: every rank has its own.
  int32_t processors = 0;
  // How many times as long compute and what is beside it take: collectives,
  // and copies between host and device.
  double compute_beside_communication = 1;
  double compute_beside_copies = 1;

  const LinkCost& LinkBetween(size_t sender, size_t receiver) const {
    return links.empty() ? default_link
                         : links[sender * chunks.size() + receiver];
  }
};

// The same cost for every chunk of the Program, free links.
CostModel UniformCost(const Program& program, const ChunkCost& cost);

// That the model has the Program's ranks and chunks, and figures that make
// sense.
absl::Status CheckCost(const Program& program, const CostModel& cost);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SIMULATOR_COST_MODEL_H_
