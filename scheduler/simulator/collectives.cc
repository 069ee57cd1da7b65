#include "scheduler/simulator/collectives.h"

#include <algorithm>

namespace trireme {

SimulatedCollectives::SimulatedCollectives(const CostModel& cost,
                                           int32_t replica,
                                           SimulatedTimes& times,
                                           SimulatedShared& shared)
    : replica_(replica),
      times_(times),
      shared_(shared),
      ranks_(cost.chunks.size()) {
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    for (const ChunkCost& chunk : cost.chunks[rank]) {
      if (!chunk.reduce_channels.empty() || !chunk.gather_channels.empty()) {
        ranks_[rank].managed = true;
      }
    }
  }
}

void SimulatedCollectives::Issue(int32_t rank, int32_t index, double ready_s,
                                 double duration_s,
                                 std::span<const ChannelTime> channels) {
  ranks_[rank].issued.push_back({index, ready_s, duration_s, channels});
  Drain(rank);
}

void SimulatedCollectives::Enter(int32_t rank, double start_s) {
  ranks_[rank].waits = false;
  RunFirst(rank, start_s);
  Drain(rank);
}

void SimulatedCollectives::Drain(int32_t index) {
  Rank& rank = ranks_[index];
  while (rank.run < rank.issued.size() && !rank.waits) {
    const Collective& first = rank.First();
    const double ready = std::max(first.ready_s, rank.free_s);
    if (first.channels.empty()) {
      RunFirst(index, ready);
      continue;
    }
    rank.waits = true;
    shared_.ArriveAtCollective(index, ready);
  }
}

void SimulatedCollectives::RunFirst(int32_t index, double start_s) {
  Rank& rank = ranks_[index];
  const Collective& first = rank.First();
  rank.free_s = start_s + first.duration_s;
  times_.Set(index, first.index, {start_s, rank.free_s});
  if (times_.Wake(index, first.index)) shared_.GoOn(replica_, index);
  ++rank.run;
}

}  // namespace trireme
