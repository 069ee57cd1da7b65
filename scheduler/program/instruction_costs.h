// What the instructions of a chunk, of its units and of a link cost: of what a
// CostModel is made.

#ifndef TRIREME_SCHEDULER_PROGRAM_INSTRUCTION_COSTS_H_
#define TRIREME_SCHEDULER_PROGRAM_INSTRUCTION_COSTS_H_

#include <array>
#include <cstdint>
#include <limits>
#include <vector>

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
  // Until a microbatch's gradients are on the host, what they were added to
  // having come from there.
  double save_gradients_s = 0;
  // Of one microbatch.
  double save_activation_s = 0;
  double load_activation_s = 0;
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

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PROGRAM_INSTRUCTION_COSTS_H_
