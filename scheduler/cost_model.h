// What the instructions of a Program cost: the simulator's input, measured or
// computed by whoever knows the hardware.

#ifndef TRIREME_SCHEDULER_COST_MODEL_H_
#define TRIREME_SCHEDULER_COST_MODEL_H_

#include <array>
#include <cstdint>
#include <limits>
#include <vector>

#include "absl/status/status.h"
#include "scheduler/program.h"

namespace trireme {

// What messages and collectives pass one after another (a node's network card):
// its number, negative: none, and how long each byte occupies it.
struct Channel {
  int32_t number = -1;
  double s_per_byte = 0;
  friend bool operator==(const Channel&, const Channel&) = default;
};

// For how long a collective occupies a channel.
struct ChannelTime {
  int32_t number = 0;
  double busy_s = 0;
  friend bool operator==(const ChannelTime&, const ChannelTime&) = default;
};

// Seconds of each instruction of one unit of a chunk (Program::offload).
struct UnitCost {
  double forward_s = 0;
  double backward_s = 0;
  double fetch_s = 0;
  double release_s = 0;
  // Until a microbatch's gradients are on the host and added there.
  double save_gradients_s = 0;
  // On the host.
  double update_s = 0;
};

// Seconds of each instruction of a chunk on its rank.
struct ChunkCost {
  double forward_s = 0;
  // Of a whole Backward (recomputation included).
  double backward_s = 0;
  double backward_input_s = 0;
  double backward_weight_s = 0;
  // Of one bucket, on the network.
  double reduce_s = 0;
  double gather_s = 0;
  // Of one bucket.
  double update_s = 0;
  // Of one microbatch's activations.
  double save_activation_s = 0;
  double load_activation_s = 0;
  // One message up from this chunk; the gradient that comes back is as large.
  int64_t message_bytes = 0;
  // What the reduction and the gather of one bucket occupy, by all members of
  // their groups together: the same for all replicas.
  std::vector<ChannelTime> reduce_channels;
  std::vector<ChannelTime> gather_channels;
  // Of every unit where the Program has an offload; else empty. They take the
  // place of forward_s, backward_s and update_s.
  std::vector<UnitCost> units;
};

struct LinkCost {
  double latency_s = 0;
  double bytes_per_s = std::numeric_limits<double>::infinity();
  // A message enters them together.
  std::array<Channel, 2> channels;

  friend bool operator==(const LinkCost&, const LinkCost&) = default;
};

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
};

// The same cost for every chunk of the Program, free links.
CostModel UniformCost(const Program& program, const ChunkCost& cost);

// That the model has the Program's ranks and chunks, and figures that make
// sense.
absl::Status CheckCost(const Program& program, const CostModel& cost);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_COST_MODEL_H_
