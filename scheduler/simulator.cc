#include "scheduler/simulator.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <queue>
#include <tuple>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "runtime/core/status.h"
#include "scheduler/simulated_memory.h"
#include "scheduler/validator.h"

namespace trireme {
namespace {

// A time that is not known yet.
constexpr double kUnknown = -1;

struct Message {
  double sent_s = kUnknown;    // Send issued
  double posted_s = kUnknown;  // Recv issued
  double arrived_s = kUnknown;
  int32_t link = 0;
  int32_t send_index = -1;  // in the sender's list
  int32_t recv_index = -1;
  int32_t waiter = -1;  // rank to go on with at arrival
};

struct Link {
  LinkCost cost;
  double free_s = 0;
  std::vector<size_t> queue;  // messages in the order of their sends
  size_t head = 0;
  bool waits = false;  // its head is in the queue for the channel
};

class Replica;

// What replicas have in common.
struct Shared {
  // A message before a channel, or a rank before a processor.
  struct Waiting {
    double ready_s;
    // Ties are taken in the order of arrival.
    int64_t number;
    Replica* replica;
    bool is_rank;
    int32_t index;  // of the link, or the rank
    bool operator>(const Waiting& other) const {
      return std::tie(ready_s, number) > std::tie(other.ready_s, other.number);
    }
  };

  // Ranks to go on with.
  std::vector<std::pair<Replica*, int32_t>> ready;
  std::priority_queue<Waiting, std::vector<Waiting>, std::greater<>> waiting;
  int64_t waited = 0;
  std::vector<double> channel_free_s;
  std::vector<Replica*> replicas;
  int64_t ranks = 0;
  int64_t ranks_at_clip = 0;
  double latest_at_clip_s = 0;
  double clip_start_s = kUnknown;
};

struct RankState {
  int32_t next = 0;
  // When the compute instructions so far have ended.
  double compute_s = 0;
  double collective_s = 0;
  double copy_in_s = 0;
  double copy_out_s = 0;
  double host_s = 0;
};

double DurationOf(const Instruction& instruction, const ChunkCost& chunk) {
  switch (instruction.kind) {
    case InstructionKind::kForward:
      return chunk.forward_s;
    case InstructionKind::kBackward:
      return chunk.backward_s;
    case InstructionKind::kBackwardInput:
      return chunk.backward_input_s;
    case InstructionKind::kBackwardWeight:
      return chunk.backward_weight_s;
    case InstructionKind::kReduceGradients:
      return chunk.reduce_s;
    case InstructionKind::kGatherParameters:
      return chunk.gather_s;
    case InstructionKind::kUpdate:
      return chunk.update_s;
    case InstructionKind::kFetch:
      return chunk.fetch_s;
    case InstructionKind::kRelease:
      return chunk.release_s;
    case InstructionKind::kSaveActivation:
      return chunk.save_activation_s;
    case InstructionKind::kLoadActivation:
      return chunk.load_activation_s;
    case InstructionKind::kSend:
    case InstructionKind::kRecv:
    case InstructionKind::kClipGradients:
      break;
  }
  return 0;
}

// Evaluates the lists in order, each as far as the times it needs are known.
// Every time is a function of earlier ones in the Program's graph (resources
// are queues in list order), so no global clock is needed, but for channels and
// shared processors: a message enters the one, an instruction takes the other
// when nothing else can be evaluated and nothing that waits is ready before it,
// since whatever is found later follows from its end or later ones.
class Replica {
 public:
  Replica(const Program& program, const CostModel& cost,
          const MemoryModel* memory, Shared& shared)
      : program_(program),
        cost_(cost),
        memory_(memory),
        shared_(shared),
        states_(program.ranks.size()) {
    result_.ranks.resize(program.ranks.size());
    for (const auto& list : program.ranks) {
      result_.times.emplace_back(list.size());
    }
    for (int32_t i = 0; i < cost.processors; ++i) processors_free_s_.push(0);
    MakeLinks();
  }

  // Evaluates the rank's list until something is not known.
  void Advance(int32_t rank) {
    RankState& state = states_[rank];
    const std::vector<Instruction>& list = program_.ranks[rank];
    while (state.next < static_cast<int32_t>(list.size())) {
      const Instruction& instruction = list[state.next];
      if (!Known(rank, instruction)) return;
      switch (instruction.kind) {
        case InstructionKind::kSend:
          IssueSend(rank, instruction);
          break;
        case InstructionKind::kRecv:
          IssueRecv(rank, instruction);
          break;
        case InstructionKind::kClipGradients:
          // The rank that comes last goes on with all.
          if (!ArriveAtClip(rank, instruction)) return;
          break;
        default: {
          const Readiness ready = ReadinessOf(rank, instruction);
          if (TakesProcessor(rank, instruction)) {
            shared_.waiting.push({ready.time_s, shared_.waited++, this,
                                  /*is_rank=*/true, rank});
            return;
          }
          RunInstruction(rank, instruction, ready);
        }
      }
      ++state.next;
    }
  }

  // The head of a link enters the channel.
  void Enter(int32_t link) {
    links_[link].waits = false;
    Transfer(links_[link]);
    Drain(link);
  }

  // The rank's next instruction takes the processor that is free first.
  void Occupy(int32_t rank) {
    RankState& state = states_[rank];
    const Instruction& instruction = program_.ranks[rank][state.next];
    Readiness ready = ReadinessOf(rank, instruction);
    const double wait = std::max(0.0, processors_free_s_.top() - ready.time_s);
    processors_free_s_.pop();
    result_.ranks[rank].processor_wait_s += wait;
    CountIdle(rank, ready.latest, ready.time_s - state.compute_s);
    ready = {.time_s = ready.time_s + wait};
    RunInstruction(rank, instruction, ready);
    processors_free_s_.push(state.compute_s);
    ++state.next;
    Advance(rank);
  }

  absl::StatusOr<Simulation> Finish() {
    for (int32_t rank = 0; rank < program_.num_ranks(); ++rank) {
      const int32_t next = states_[rank].next;
      if (next < static_cast<int32_t>(program_.ranks[rank].size())) {
        return InvalidArgument(
            "{}: found it blocked for ever, expected a Program that "
            "ValidateProgram accepts",
            Describe(program_, rank, next));
      }
    }
    FinishTimes();
    FinishMemory();
    return std::move(result_);
  }

 private:
  size_t MessageIndex(const Instruction& message) const {
    const size_t hops = program_.stages.size() - 1;
    const size_t direction = message.payload == Payload::kGradient ? 1 : 0;
    return (direction * hops + message.hop) * program_.microbatches +
           message.microbatch;
  }

  void MakeLinks() {
    const size_t hops = program_.stages.size() - 1;
    messages_.resize(2 * hops * program_.microbatches);
    absl::flat_hash_map<std::pair<int32_t, int32_t>, int32_t> link_of;
    for (size_t direction = 0; direction < 2; ++direction) {
      for (size_t hop = 0; hop < hops; ++hop) {
        const int32_t from = program_.stages[hop + direction].rank;
        const int32_t to = program_.stages[hop + 1 - direction].rank;
        const auto [found, is_new] = link_of.try_emplace(
            {from, to}, static_cast<int32_t>(links_.size()));
        if (is_new) {
          Link& link = links_.emplace_back();
          link.cost =
              cost_.links.empty()
                  ? cost_.default_link
                  : cost_.links[size_t(from) * program_.num_ranks() + to];
        }
        const size_t first = (direction * hops + hop) * program_.microbatches;
        for (int32_t i = 0; i < program_.microbatches; ++i) {
          messages_[first + i].link = found->second;
        }
      }
    }
  }

  // False where a message that it needs has no known arrival; the rank is then
  // resumed by the arrival.
  bool Known(int32_t rank, const Instruction& instruction) {
    for (const int32_t dependency : instruction.depends_on) {
      const Instruction& other = program_.ranks[rank][dependency];
      if (other.kind != InstructionKind::kRecv) continue;
      Message& message = messages_[MessageIndex(other)];
      if (message.arrived_s == kUnknown) {
        message.waiter = rank;
        return false;
      }
    }
    return true;
  }

  void IssueSend(int32_t rank, const Instruction& send) {
    const size_t index = MessageIndex(send);
    Message& message = messages_[index];
    message.sent_s = states_[rank].compute_s;
    for (const int32_t dependency : send.depends_on) {
      message.sent_s =
          std::max(message.sent_s, result_.times[rank][dependency].end_s);
    }
    message.send_index = states_[rank].next;
    links_[message.link].queue.push_back(index);
    Drain(message.link);
  }

  void IssueRecv(int32_t rank, const Instruction& recv) {
    Message& message = messages_[MessageIndex(recv)];
    message.posted_s = states_[rank].compute_s;
    message.recv_index = states_[rank].next;
    Drain(message.link);
  }

  // Moves the messages at the head of the link whose both ends are issued.
  void Drain(int32_t index) {
    Link& link = links_[index];
    while (link.head < link.queue.size() && !link.waits) {
      const Message& message = messages_[link.queue[link.head]];
      if (message.posted_s == kUnknown) return;
      if (HasChannel(link.cost)) {
        link.waits = true;
        shared_.waiting.push({ReadyAt(message, link), shared_.waited++, this,
                              /*is_rank=*/false, index});
        return;
      }
      Transfer(link);
    }
  }

  static bool HasChannel(const LinkCost& link) {
    return std::any_of(link.channels.begin(), link.channels.end(),
                       [](const auto& channel) { return channel.number >= 0; });
  }

  static double ReadyAt(const Message& message, const Link& link) {
    return std::max({message.sent_s, message.posted_s, link.free_s});
  }

  // The message at the head of the link travels.
  void Transfer(Link& link) {
    const size_t index = link.queue[link.head++];
    Message& message = messages_[index];
    const Instruction& send = SendOf(index);
    const StageLocation& below = program_.stages[send.hop];
    const StageLocation& above = program_.stages[send.hop + 1];
    const bool up = send.payload == Payload::kActivation;
    const double bytes = static_cast<double>(
        cost_.chunks[below.rank][below.chunk].message_bytes);
    double start = ReadyAt(message, link);
    for (const LinkCost::Channel& channel : link.cost.channels) {
      if (channel.number < 0) continue;
      start = std::max(start, shared_.channel_free_s[channel.number]);
    }
    for (const LinkCost::Channel& channel : link.cost.channels) {
      if (channel.number < 0) continue;
      shared_.channel_free_s[channel.number] =
          start + bytes * channel.s_per_byte;
    }
    link.free_s = start + bytes / link.cost.bytes_per_s;
    message.arrived_s = link.free_s + link.cost.latency_s;
    const int32_t from = up ? below.rank : above.rank;
    const int32_t to = up ? above.rank : below.rank;
    const Interval interval = {start, message.arrived_s};
    result_.times[from][message.send_index] = interval;
    result_.times[to][message.recv_index] = interval;
    if (message.waiter >= 0) {
      shared_.ready.emplace_back(this, message.waiter);
      message.waiter = -1;
    }
  }

  const Instruction& SendOf(size_t message) const {
    const size_t hops = program_.stages.size() - 1;
    const size_t channel = message / program_.microbatches;
    const size_t sender_stage = channel < hops ? channel : channel - hops + 1;
    return program_.ranks[program_.stages[sender_stage].rank]
                         [messages_[message].send_index];
  }

  bool ArriveAtClip(int32_t rank, const Instruction& clip) {
    if (shared_.clip_start_s == kUnknown) {
      RankState& state = states_[rank];
      double ready = state.compute_s;
      for (const int32_t dependency : clip.depends_on) {
        ready = std::max(ready, result_.times[rank][dependency].end_s);
      }
      result_.ranks[rank].exposed_other_s += ready - state.compute_s;
      // Where it starts is known when the last rank has come.
      result_.times[rank][state.next].start_s = ready;
      shared_.latest_at_clip_s = std::max(shared_.latest_at_clip_s, ready);
      if (++shared_.ranks_at_clip < shared_.ranks) return false;
      shared_.clip_start_s = shared_.latest_at_clip_s;
      for (Replica* replica : shared_.replicas) {
        for (int32_t other = 0; other < program_.num_ranks(); ++other) {
          if (replica != this || other != rank) {
            shared_.ready.emplace_back(replica, other);
          }
        }
      }
    }
    Interval& interval = result_.times[rank][states_[rank].next];
    result_.ranks[rank].bubble_s += shared_.clip_start_s - interval.start_s;
    interval = {shared_.clip_start_s, shared_.clip_start_s + cost_.clip_s};
    result_.ranks[rank].compute_s += cost_.clip_s;
    states_[rank].compute_s = interval.end_s;
    return true;
  }

  // When an instruction may start, but for its resource, and the dependency
  // that it waits for until then, or -1.
  struct Readiness {
    double time_s = 0;
    int32_t latest = -1;
  };

  Readiness ReadinessOf(int32_t rank, const Instruction& instruction) const {
    Readiness ready;
    if (instruction.kind != InstructionKind::kReduceGradients) {
      ready.time_s = states_[rank].compute_s;
    }
    for (const int32_t dependency : instruction.depends_on) {
      const double end = ReadyAt(rank, instruction, dependency);
      if (end > ready.time_s) ready = {end, dependency};
    }
    return ready;
  }

  bool TakesProcessor(int32_t rank, const Instruction& instruction) const {
    return cost_.processors > 0 && instruction.resource == Resource::kCompute &&
           DurationOf(instruction, cost_.chunks[rank][instruction.chunk]) > 0;
  }

  void RunInstruction(int32_t rank, const Instruction& instruction,
                      const Readiness& ready) {
    RankState& state = states_[rank];
    const double duration =
        DurationOf(instruction, cost_.chunks[rank][instruction.chunk]);
    double& free = FreeAt(state, instruction.resource);
    const double start = std::max(ready.time_s, free);
    if (instruction.resource == Resource::kCompute) {
      CountIdle(rank, ready.latest, start - state.compute_s);
      result_.ranks[rank].compute_s += duration;
    }
    free = start + duration;
    result_.times[rank][state.next] = {start, free};
  }

  // When the dependency lets the instruction start.
  double ReadyAt(int32_t rank, const Instruction& instruction,
                 int32_t dependency) const {
    const Interval& interval = result_.times[rank][dependency];
    const Instruction& other = program_.ranks[rank][dependency];
    if (instruction.kind != InstructionKind::kReduceGradients ||
        other.resource != Resource::kCompute ||
        other.chunk != instruction.chunk) {
      return interval.end_s;
    }
    const double buckets = BucketsOf(rank, instruction.chunk);
    return interval.start_s + (instruction.bucket + 1) / buckets *
                                  (interval.end_s - interval.start_s);
  }

  double BucketsOf(int32_t rank, int32_t chunk) const {
    return program_.buckets[StageOf(program_, rank, chunk)];
  }

  static double& FreeAt(RankState& state, Resource resource) {
    switch (resource) {
      case Resource::kCompute:
        return state.compute_s;
      case Resource::kCommunication:
        return state.collective_s;
      case Resource::kCopyIn:
        return state.copy_in_s;
      case Resource::kCopyOut:
        return state.copy_out_s;
      case Resource::kHost:
        break;
    }
    return state.host_s;
  }

  // Books `idle` seconds before a compute instruction that waited for
  // instruction `latest` of its list.
  void CountIdle(int32_t rank, int32_t latest, double idle) {
    if (latest < 0 || idle <= 0) return;
    RankTime& time = result_.ranks[rank];
    const Instruction& other = program_.ranks[rank][latest];
    if (other.kind != InstructionKind::kRecv) {
      time.exposed_other_s += idle;
      return;
    }
    const Message& message = messages_[MessageIndex(other)];
    const double exposed = std::min(idle, message.arrived_s - message.sent_s);
    time.exposed_message_s += exposed;
    time.bubble_s += idle - exposed;
  }

  void FinishTimes() {
    for (const auto& times : result_.times) {
      for (const Interval& interval : times) {
        result_.step_s = std::max(result_.step_s, interval.end_s);
      }
    }
    for (int32_t rank = 0; rank < program_.num_ranks(); ++rank) {
      const RankState& state = states_[rank];
      RankTime& time = result_.ranks[rank];
      const double own_end =
          std::max({state.compute_s, state.collective_s, state.copy_in_s,
                    state.copy_out_s, state.host_s});
      time.exposed_other_s += own_end - state.compute_s;
      time.bubble_s += result_.step_s - own_end;
    }
  }

  void FinishMemory() {
    for (int32_t rank = 0; rank < program_.num_ranks(); ++rank) {
      RankMemory counts_only;
      counts_only.chunks.resize(cost_.chunks[rank].size());
      result_.peak_live_activations.push_back(
          PeakInListOrder(program_.ranks[rank], counts_only).live_activations);
      if (memory_ != nullptr) result_.peak_memory.push_back(PeakInTime(rank));
    }
  }

  MemoryBytes PeakInTime(int32_t rank) const {
    std::vector<Interval> held = result_.times[rank];
    for (size_t i = 0; i < held.size(); ++i) {
      const Instruction& instruction = program_.ranks[rank][i];
      if (instruction.kind == InstructionKind::kRecv) {
        held[i].start_s = messages_[MessageIndex(instruction)].posted_s;
      } else if (instruction.kind == InstructionKind::kSend) {
        held[i].start_s = messages_[MessageIndex(instruction)].sent_s;
      }
    }
    return SimulatedPeak(program_, rank, held, *memory_);
  }

  const Program& program_;
  const CostModel& cost_;
  const MemoryModel* memory_;
  Shared& shared_;
  Simulation result_;
  std::vector<RankState> states_;
  std::vector<Message> messages_;
  std::vector<Link> links_;
  // When each of the processors is free.
  std::priority_queue<double, std::vector<double>, std::greater<>>
      processors_free_s_;
};

}  // namespace

absl::StatusOr<Simulation> Simulate(const Program& program,
                                    const CostModel& cost,
                                    const MemoryModel* memory) {
  ASSIGN_OR_RETURN(std::vector<Simulation> results,
                   SimulateReplicas(program, {&cost, 1}, memory));
  return std::move(results.front());
}

absl::StatusOr<std::vector<Simulation>> SimulateReplicas(
    const Program& program, std::span<const CostModel> replicas,
    const MemoryModel* memory) {
  RETURN_IF_ERROR(ValidateStructure(program));
  RETURN_IF_ERROR(ValidateMessages(program));
  if (memory != nullptr) RETURN_IF_ERROR(CheckMemoryModel(program, *memory));
  Shared shared;
  shared.ranks = static_cast<int64_t>(replicas.size()) * program.num_ranks();
  std::vector<std::unique_ptr<Replica>> simulators;
  for (const CostModel& cost : replicas) {
    RETURN_IF_ERROR(CheckCost(program, cost));
    for (const LinkCost& link : cost.links) {
      for (const LinkCost::Channel& channel : link.channels) {
        const auto count = static_cast<int32_t>(shared.channel_free_s.size());
        shared.channel_free_s.resize(std::max(count, channel.number + 1));
      }
    }
    simulators.push_back(std::make_unique<Replica>(
        program, cost, simulators.empty() ? memory : nullptr, shared));
    shared.replicas.push_back(simulators.back().get());
    for (int32_t rank = program.num_ranks() - 1; rank >= 0; --rank) {
      shared.ready.emplace_back(simulators.back().get(), rank);
    }
  }
  while (true) {
    while (!shared.ready.empty()) {
      const auto [replica, rank] = shared.ready.back();
      shared.ready.pop_back();
      replica->Advance(rank);
    }
    if (shared.waiting.empty()) break;
    const Shared::Waiting next = shared.waiting.top();
    shared.waiting.pop();
    if (next.is_rank) {
      next.replica->Occupy(next.index);
    } else {
      next.replica->Enter(next.index);
    }
  }
  std::vector<Simulation> results;
  for (const auto& simulator : simulators) {
    ASSIGN_OR_RETURN(results.emplace_back(), simulator->Finish());
  }
  return results;
}

}  // namespace trireme
