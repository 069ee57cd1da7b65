#include "scheduler/simulator/replica.h"

#include <algorithm>
#include <utility>

#include "runtime/core/status.h"
#include "scheduler/program/instruction_kinds.h"
#include "scheduler/program/validator.h"
#include "scheduler/simulator/slowdown.h"

namespace trireme {
namespace {

using Kind = SimulatedInstruction::Kind;

// What a rank reads and writes when it goes on the next time. A processor
// foresees that of some lists, not of a thousand in turn.
constexpr int32_t kInstructionsAhead = 8;
void BringNear(const void* at) { __builtin_prefetch(at); }

}  // namespace

SimulatedReplica::SimulatedReplica(const SimulatedProgram& program,
                                   const CostModel& cost,
                                   const MemoryModel* memory, int32_t number,
                                   SimulatedShared& shared)
    : program_(program),
      cost_(cost),
      memory_(memory),
      number_(number),
      shared_(shared),
      states_(program.lists.size()) {
  for (const auto& list : program.lists) {
    result_.times.emplace_back(list.size(), Interval{kUnknown, kUnknown});
  }
  AddLinks();
  const auto add_all_kinds = [this](const auto& costs, auto seconds) {
    for (const KindTraits& kind : kKindTraits) {
      const auto member = kind.*seconds;
      durations_.push_back(member == nullptr ? 0 : costs.*member);
    }
  };
  for (size_t rank = 0; rank < cost.chunks.size(); ++rank) {
    for (const ChunkCost& chunk : cost.chunks[rank]) {
      add_all_kinds(chunk, &KindTraits::chunk_s);
      states_[rank].passes_channels |=
          !chunk.reduce_channels.empty() || !chunk.gather_channels.empty();
    }
  }
  for (const std::vector<ChunkCost>& chunks : cost.chunks) {
    for (const ChunkCost& chunk : chunks) {
      for (const UnitCost& unit : chunk.units) {
        add_all_kinds(unit, &KindTraits::unit_s);
      }
    }
  }
  for (int32_t i = 0; i < cost.processors; ++i) processors_free_s_.push(0);
  result_.ranks.resize(program.lists.size());
}

void SimulatedReplica::Advance(int32_t rank) {
  RankState& state = states_[rank];
  const std::vector<SimulatedInstruction>& list = program_.lists[rank];
  const auto size = static_cast<int32_t>(list.size());
  const std::vector<Interval>& times = result_.times[rank];
  for (; state.next < size; ++state.next) {
    const int32_t ahead = std::min(state.next + kInstructionsAhead, size - 1);
    BringNear(&list[ahead]);
    BringNear(&times[ahead]);
    const SimulatedInstruction& instruction = list[state.next];
    if (!Known(rank, instruction)) return;
    switch (instruction.kind) {
      case Kind::kSend:
        Send(instruction.operand, state.next,
             ReadinessOf(rank, instruction).time_s);
        break;
      case Kind::kRecv:
        Post(instruction.operand, state.next, state.compute_s());
        break;
      case Kind::kClip:
        // The rank that comes last goes on with all.
        if (!MeetAtClip(rank, instruction)) return;
        break;
      case Kind::kRun: {
        const Readiness ready = ReadinessOf(rank, instruction);
        if (cost_.processors > 0 &&
            instruction.resource == Resource::kCompute &&
            durations_[instruction.operand] > 0) {
          shared_.Wait(SimulatedShared::Waiting::Kind::kRank, ready.time_s,
                       number_, rank);
          return;
        }
        if (instruction.resource == Resource::kCommunication &&
            state.passes_channels) {
          Issue(rank, {state.next, ready.time_s,
                       durations_[instruction.operand], ChannelsOfNext(rank)});
          break;
        }
        Run(rank, instruction, ready);
      }
    }
  }
}

void SimulatedReplica::Occupy(int32_t rank) {
  RankState& state = states_[rank];
  const SimulatedInstruction& instruction = program_.lists[rank][state.next];
  Readiness ready = ReadinessOf(rank, instruction);
  const double wait = std::max(0.0, processors_free_s_.top() - ready.time_s);
  processors_free_s_.pop();
  result_.ranks[rank].processor_wait_s += wait;
  CountIdle(rank, ready.latest, ready.time_s - state.compute_s());
  ready = {.time_s = ready.time_s + wait};
  Run(rank, instruction, ready);
  processors_free_s_.push(state.compute_s());
  ++state.next;
  Advance(rank);
}

bool SimulatedReplica::Known(int32_t rank,
                             const SimulatedInstruction& instruction) {
  const auto known = [&](int32_t dependency) {
    if (TimeOf(rank, dependency).end_s != kUnknown) return true;
    states_[rank].waits_for = dependency;
    return false;
  };
  if (instruction.dependency >= 0) return known(instruction.dependency);
  if (instruction.dependency == SimulatedInstruction::kNone) return true;
  const Instruction& full = program_.program->ranks[rank][states_[rank].next];
  return std::all_of(full.depends_on.begin(), full.depends_on.end(), known);
}

SimulatedReplica::Readiness SimulatedReplica::ReadinessOf(
    int32_t rank, const SimulatedInstruction& instruction) const {
  if (instruction.dependency == SimulatedInstruction::kSeveral) {
    return ReadinessOfSeveral(rank);
  }
  Readiness ready = {.time_s = RunsBesideCompute(instruction.resource)
                                   ? 0
                                   : states_[rank].compute_s()};
  if (instruction.dependency >= 0) {
    const double end = TimeOf(rank, instruction.dependency).end_s;
    if (end > ready.time_s) ready = {end, instruction.dependency};
  }
  return ready;
}

SimulatedReplica::Readiness SimulatedReplica::ReadinessOfSeveral(
    int32_t rank) const {
  const Instruction& instruction =
      program_.program->ranks[rank][states_[rank].next];
  Readiness ready;
  if (instruction.kind != InstructionKind::kReduceGradients &&
      !RunsBesideCompute(instruction.resource)) {
    ready.time_s = states_[rank].compute_s();
  }
  for (const int32_t dependency : instruction.depends_on) {
    const double end = ReadyAt(rank, instruction, dependency);
    if (end > ready.time_s) ready = {end, dependency};
  }
  return ready;
}

// When the dependency lets the instruction start.
double SimulatedReplica::ReadyAt(int32_t rank, const Instruction& instruction,
                                 int32_t dependency) const {
  const Interval& interval = TimeOf(rank, dependency);
  const Instruction& other = program_.program->ranks[rank][dependency];
  if (instruction.kind != InstructionKind::kReduceGradients ||
      other.resource != Resource::kCompute ||
      other.chunk != instruction.chunk) {
    return interval.end_s;
  }
  const double buckets =
      program_.buckets[program_.first_chunk[rank] + instruction.chunk];
  return interval.start_s + (instruction.bucket + 1) / buckets *
                                (interval.end_s - interval.start_s);
}

// True when all ranks are there.
bool SimulatedReplica::MeetAtClip(int32_t rank,
                                  const SimulatedInstruction& clip) {
  RankState& state = states_[rank];
  RankTime& time = result_.ranks[rank];
  if (!shared_.ClipKnown()) {
    const Readiness ready = ReadinessOf(rank, clip);
    CountIdle(rank, ready.latest, ready.time_s - state.compute_s());
    // Where it starts is known when the last rank has come.
    result_.times[rank][state.next].start_s = ready.time_s;
    if (!shared_.ArriveAtClip(number_, rank, ready.time_s)) return false;
  }
  const double start = shared_.ClipStart();
  time.bubble_s += start - TimeOf(rank, state.next).start_s;
  time.compute_s += cost_.clip_s;
  result_.times[rank][state.next] = {start, start + cost_.clip_s};
  state.FreeAt(Resource::kCompute) = start + cost_.clip_s;
  return true;
}

std::span<const ChannelTime> SimulatedReplica::ChannelsOfNext(
    int32_t rank) const {
  const Instruction& next = program_.program->ranks[rank][states_[rank].next];
  const ChunkCost& chunk = cost_.chunks[rank][next.chunk];
  if (next.kind == InstructionKind::kReduceGradients) {
    return chunk.reduce_channels;
  }
  if (next.kind == InstructionKind::kGatherParameters) {
    return chunk.gather_channels;
  }
  return {};
}

void SimulatedReplica::Run(int32_t rank,
                           const SimulatedInstruction& instruction,
                           const Readiness& ready) {
  RankState& state = states_[rank];
  const double duration = durations_[instruction.operand];
  double& free = state.FreeAt(instruction.resource);
  const double start = std::max(ready.time_s, free);
  if (instruction.resource == Resource::kCompute) {
    CountIdle(rank, ready.latest, start - free);
    result_.ranks[rank].compute_s += duration;
  }
  free = start + duration;
  result_.times[rank][state.next] = {start, free};
}

// Books `idle` seconds before a compute instruction that waited for
// instruction `latest` of its list.
void SimulatedReplica::CountIdle(int32_t rank, int32_t latest, double idle) {
  if (latest < 0 || idle <= 0) return;
  RankTime& time = result_.ranks[rank];
  const SimulatedInstruction& other = program_.lists[rank][latest];
  if (other.kind != Kind::kRecv) {
    const double host = other.resource == Resource::kCopyIn
                            ? WaitForHost(rank, latest, idle)
                        : other.resource == Resource::kHost ? idle
                                                            : 0;
    time.exposed_host_s += host;
    (other.resource == Resource::kCopyIn || other.resource == Resource::kCopyOut
         ? time.exposed_copy_s
         : time.exposed_other_s) += idle - host;
    return;
  }
  const double on_the_way =
      TimeOf(rank, latest).end_s - messages_[other.operand].sent_s;
  const double exposed = std::min(idle, on_the_way);
  time.exposed_message_s += exposed;
  time.bubble_s += idle - exposed;
}

double SimulatedReplica::WaitForHost(int32_t rank, int32_t copy,
                                     double idle) const {
  const std::vector<Instruction>& list = program_.program->ranks[rank];
  double updated_s = 0, free_s = 0;
  for (const int32_t dependency : list[copy].depends_on) {
    double& ready_s =
        list[dependency].kind == InstructionKind::kUpdate ? updated_s : free_s;
    ready_s = std::max(ready_s, TimeOf(rank, dependency).end_s);
  }
  // The copy before it on the link.
  for (int32_t i = copy - 1; i >= 0 && updated_s > free_s; --i) {
    if (list[i].resource != Resource::kCopyIn) continue;
    free_s = std::max(free_s, TimeOf(rank, i).end_s);
    break;
  }
  return std::clamp(updated_s - free_s, 0.0, idle);
}

absl::StatusOr<Simulation> SimulatedReplica::Finish() {
  const Program& program = *program_.program;
  for (int32_t rank = 0; rank < program.num_ranks(); ++rank) {
    const int32_t next = states_[rank].next;
    if (next < static_cast<int32_t>(program.ranks[rank].size())) {
      return InvalidArgument(
          "{}: found it blocked for ever, expected a Program that "
          "ValidateProgram accepts",
          Describe(program, rank, next));
    }
  }
  FinishTimes();
  if (memory_ != nullptr) {
    for (int32_t rank = 0; rank < program.num_ranks(); ++rank) {
      result_.peak_memory.push_back(PeakInTime(rank));
    }
  }
  SlowDown();
  return std::move(result_);
}

double SimulatedReplica::LastGather(int32_t rank) const {
  const std::vector<Instruction>& list = program_.program->ranks[rank];
  const auto first_forward = [&](int32_t chunk) {
    const auto at = std::find_if(
        list.begin(), list.end(), [&](const Instruction& instruction) {
          return instruction.kind == InstructionKind::kForward &&
                 instruction.chunk == chunk;
        });
    return at == list.end()
               ? Interval{0, 0}
               : TimeOf(rank, static_cast<int32_t>(at - list.begin()));
  };
  double last = 0;
  // Gathers follow the step's ClipGradients.
  for (auto i = static_cast<int32_t>(list.size()) - 1;
       i >= 0 && list[i].kind != InstructionKind::kClipGradients; --i) {
    if (list[i].kind != InstructionKind::kGatherParameters) continue;
    const int32_t chunk = list[i].chunk;
    const Interval forward = first_forward(chunk);
    // Bucket 0 has the chunk's last layers.
    const double buckets = program_.buckets[program_.first_chunk[rank] + chunk];
    const double used_s = forward.start_s + (forward.end_s - forward.start_s) *
                                                (buckets - 1 - list[i].bucket) /
                                                buckets;
    last = std::max(last, TimeOf(rank, i).end_s - used_s);
  }
  return last;
}

void SimulatedReplica::FinishTimes() {
  for (const Link& link : links_) {
    if (link.left == 0) continue;
    result_.step_s = std::max(result_.step_s, link.free_s + link.latency_s);
  }
  std::vector<double> own_ends;
  for (size_t rank = 0; rank < states_.size(); ++rank) {
    double end = LastGather(static_cast<int32_t>(rank));
    for (const Resource resource : {Resource::kCompute, Resource::kCopyIn,
                                    Resource::kCopyOut, Resource::kHost}) {
      end = std::max(end, states_[rank].FreeAt(resource));
    }
    own_ends.push_back(end);
    result_.step_s = std::max(result_.step_s, end);
  }
  for (size_t rank = 0; rank < states_.size(); ++rank) {
    RankTime& time = result_.ranks[rank];
    RankState& state = states_[rank];
    // What runs on when its compute is over: the host, then copies behind it,
    // then communication.
    double end = state.compute_s();
    const auto extend = [&end](double until) {
      const double added = std::max(0.0, until - end);
      end += added;
      return added;
    };
    time.exposed_host_s += extend(state.FreeAt(Resource::kHost));
    time.exposed_copy_s += extend(std::max(state.FreeAt(Resource::kCopyIn),
                                           state.FreeAt(Resource::kCopyOut)));
    time.exposed_other_s += extend(own_ends[rank]);
    time.bubble_s += result_.step_s - own_ends[rank];
  }
}

void SimulatedReplica::SlowDown() {
  std::vector<double> slowed;
  for (size_t rank = 0; rank < states_.size(); ++rank) {
    slowed.push_back(SlowedSeconds(program_.program->ranks[rank],
                                   result_.times[rank], cost_));
  }
  const double most = *std::max_element(slowed.begin(), slowed.end());
  result_.step_s += most;
  for (size_t rank = 0; rank < states_.size(); ++rank) {
    result_.ranks[rank].compute_s += slowed[rank];
    result_.ranks[rank].bubble_s += most - slowed[rank];
  }
}

}  // namespace trireme
