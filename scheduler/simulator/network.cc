// What of a replica passes the network: messages on their links, collectives.

#include <algorithm>

#include "scheduler/simulator/replica.h"

namespace trireme {

void SimulatedReplica::AddLinks() {
  for (const SimulatedProgram::Link& ends : program_.links) {
    const LinkCost& link = cost_.LinkBetween(ends.from, ends.to);
    const bool has_channel =
        std::any_of(link.channels.begin(), link.channels.end(),
                    [](const Channel& channel) { return channel.number >= 0; });
    links_.push_back({.ends = &ends,
                      .latency_s = link.latency_s,
                      .bytes_per_s = link.bytes_per_s,
                      .has_channel = has_channel});
    channels_.push_back(link.channels);
  }
  messages_.resize(program_.num_messages);
  for (size_t lane = 0; lane < program_.link_of_lane.size(); ++lane) {
    const auto& [rank, chunk] =
        program_.program->stages[lane % program_.Hops()];
    lane_bytes_.push_back(
        static_cast<double>(cost_.chunks[rank][chunk].message_bytes));
  }
}

void SimulatedReplica::Wake(int32_t rank, int32_t index) {
  if (states_[rank].waits_for != index) return;
  states_[rank].waits_for = kNothing;
  shared_.GoOn(number_, rank);
}

void SimulatedReplica::Send(int32_t message, int32_t index, double sent_s) {
  messages_[message].sent_s = sent_s;
  messages_[message].send_index = index;
  const int32_t link = program_.link_of_lane[program_.LaneOf(message)];
  ++links_[link].sent;
  DrainLink(link);
}

void SimulatedReplica::Post(int32_t message, int32_t index, double posted_s) {
  messages_[message].posted_s = posted_s;
  messages_[message].recv_index = index;
  DrainLink(program_.link_of_lane[program_.LaneOf(message)]);
}

void SimulatedReplica::EnterLink(int32_t link) {
  links_[link].waits = false;
  Transfer(link);
  DrainLink(link);
}

void SimulatedReplica::DrainLink(int32_t index) {
  Link& link = links_[index];
  while (link.left < link.sent && !link.waits) {
    const Message& message = messages_[link.ends->MessageAt(link.left)];
    if (message.posted_s == kUnknown) return;
    if (link.has_channel) {
      link.waits = true;
      shared_.Wait(SimulatedShared::Waiting::Kind::kLink,
                   std::max({message.sent_s, message.posted_s, link.free_s}),
                   number_, index);
      return;
    }
    Transfer(index);
  }
}

// The first message of the link travels.
void SimulatedReplica::Transfer(int32_t index) {
  Link& link = links_[index];
  const int32_t number = link.ends->MessageAt(link.left++);
  const Message& message = messages_[number];
  const double bytes = lane_bytes_[program_.LaneOf(number)];
  double start = std::max({message.sent_s, message.posted_s, link.free_s});
  if (link.has_channel) {
    for (const Channel& channel : channels_[index]) {
      if (channel.number < 0) continue;
      start = std::max(start, shared_.ChannelFree(channel.number));
    }
    for (const Channel& channel : channels_[index]) {
      if (channel.number < 0) continue;
      shared_.ChannelFree(channel.number) = start + bytes * channel.s_per_byte;
    }
  }
  link.free_s = start + bytes / link.bytes_per_s;
  const Interval interval = {start, link.free_s + link.latency_s};
  const int32_t to = link.ends->to;
  result_.times[link.ends->from][message.send_index] = interval;
  result_.times[to][message.recv_index] = interval;
  Wake(to, message.recv_index);
}

void SimulatedReplica::Issue(int32_t rank, const Collective& collective) {
  states_[rank].collectives.push_back(collective);
  DrainCollectives(rank);
}

void SimulatedReplica::EnterCollective(int32_t rank, double start_s) {
  states_[rank].collective_waits = false;
  RunFirstCollective(rank, start_s);
  DrainCollectives(rank);
}

void SimulatedReplica::DrainCollectives(int32_t rank) {
  RankState& state = states_[rank];
  while (state.collectives_run < state.collectives.size() &&
         !state.collective_waits) {
    const Collective& first = state.FirstCollective();
    const double ready = std::max(first.ready_s, state.collectives_free_s);
    if (first.channels.empty()) {
      RunFirstCollective(rank, ready);
      continue;
    }
    state.collective_waits = true;
    shared_.ArriveAtCollective(rank, ready);
  }
}

void SimulatedReplica::RunFirstCollective(int32_t rank, double start_s) {
  RankState& state = states_[rank];
  const Collective& first = state.FirstCollective();
  state.collectives_free_s = start_s + first.duration_s;
  result_.times[rank][first.index] = {start_s, state.collectives_free_s};
  Wake(rank, first.index);
  ++state.collectives_run;
}

}  // namespace trireme
