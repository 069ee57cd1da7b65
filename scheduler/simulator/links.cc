#include "scheduler/simulator/links.h"

#include <algorithm>

namespace trireme {
namespace {

bool HasChannel(const LinkCost& link) {
  return std::any_of(link.channels.begin(), link.channels.end(),
                     [](const auto& channel) { return channel.number >= 0; });
}

}  // namespace

SimulatedLinks::SimulatedLinks(const SimulatedProgram& program,
                               const CostModel& cost, int32_t replica,
                               SimulatedTimes& times, SimulatedShared& shared)
    : program_(program), replica_(replica), times_(times), shared_(shared) {
  const size_t ranks = program.lists.size();
  for (const SimulatedProgram::Link& ends : program.links) {
    const LinkCost& link_cost = cost.links.empty()
                                    ? cost.default_link
                                    : cost.links[ends.from * ranks + ends.to];
    links_.push_back({.ends = &ends,
                      .latency_s = link_cost.latency_s,
                      .bytes_per_s = link_cost.bytes_per_s,
                      .has_channel = HasChannel(link_cost)});
    channels_.push_back(link_cost.channels);
  }
  messages_.reserve(program.messages.size());
  for (const auto& [send_index, recv_index] : program.messages) {
    messages_.push_back({.send_index = send_index, .recv_index = recv_index});
  }
  for (size_t lane = 0; lane < program.link_of_lane.size(); ++lane) {
    const auto& [rank, chunk] = program.program->stages[lane % program.Hops()];
    lane_bytes_.push_back(
        static_cast<double>(cost.chunks[rank][chunk].message_bytes));
  }
}

void SimulatedLinks::Send(int32_t message, double sent_s) {
  messages_[message].sent_s = sent_s;
  const int32_t link = program_.link_of_lane[program_.LaneOf(message)];
  ++links_[link].sent;
  Drain(link);
}

void SimulatedLinks::Post(int32_t message, double posted_s) {
  messages_[message].posted_s = posted_s;
  Drain(program_.link_of_lane[program_.LaneOf(message)]);
}

void SimulatedLinks::Enter(int32_t link) {
  links_[link].waits = false;
  Transfer(link);
  Drain(link);
}

double SimulatedLinks::LastArrival() const {
  double last = 0;
  for (const Link& link : links_) {
    if (link.left > 0) last = std::max(last, link.free_s + link.latency_s);
  }
  return last;
}

void SimulatedLinks::Drain(int32_t index) {
  Link& link = links_[index];
  while (link.left < link.sent && !link.waits) {
    const Message& message = messages_[link.ends->MessageAt(link.left)];
    if (message.posted_s == SimulatedTimes::kUnknown) return;
    if (link.has_channel) {
      link.waits = true;
      shared_.Wait(SimulatedShared::Waiting::Kind::kLink,
                   std::max({message.sent_s, message.posted_s, link.free_s}),
                   replica_, index);
      return;
    }
    Transfer(index);
  }
}

// The first message of the link travels.
void SimulatedLinks::Transfer(int32_t index) {
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
  times_.Set(link.ends->from, message.send_index, interval);
  times_.Set(to, message.recv_index, interval);
  if (times_.Wake(to, message.recv_index)) shared_.GoOn(replica_, to);
}

}  // namespace trireme
