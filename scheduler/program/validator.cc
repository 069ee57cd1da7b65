#include "scheduler/program/validator.h"

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "scheduler/program/instruction_kinds.h"

namespace trireme {
namespace {

absl::Status CheckRange(const Program& program, int32_t rank, int32_t index,
                        std::string_view field, int32_t value, int32_t end) {
  if (value >= 0 && value < end) return absl::OkStatus();
  return InstructionError(program, rank, index,
                          fmt::format("{} {}", field, value),
                          fmt::format("0 to {}", end - 1));
}

absl::Status ValidateRoutes(const Program& program) {
  if (!program.routes.empty() &&
      static_cast<int32_t>(program.routes.size()) != program.microbatches) {
    return InvalidArgument(
        "program.routes: found {}, expected none or one for each of the {} "
        "microbatches",
        program.routes.size(), program.microbatches);
  }
  for (size_t m = 0; m < program.routes.size(); ++m) {
    const std::vector<int32_t>& route = program.routes[m];
    for (size_t i = 0; i < route.size(); ++i) {
      if (route[i] >= 0 && route[i] < program.num_stages() &&
          std::find(route.begin(), route.begin() + i, route[i]) ==
              route.begin() + i) {
        continue;
      }
      return InvalidArgument(
          "program.routes[{}]: found stage {}, expected stages below {}, each "
          "once",
          m, route[i], program.num_stages());
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateStages(const Program& program) {
  const size_t stages = program.stages.size();
  if (program.ranks.empty() || stages == 0 || program.microbatches < 1) {
    return InvalidArgument(
        "program: found {} ranks, {} stages and {} microbatches, expected at "
        "least 1 of each",
        program.ranks.size(), stages, program.microbatches);
  }
  if (static_cast<int64_t>(stages) * program.microbatches >
      kMaxMicrobatchesTimesStages) {
    return InvalidArgument(
        "program: found {} stages and {} microbatches, expected a product of "
        "at most {}",
        stages, program.microbatches, kMaxMicrobatchesTimesStages);
  }
  if (program.offload.has_value()) {
    const Offload& offload = *program.offload;
    if (offload.units != program.buckets || offload.resident_units < 1) {
      return InvalidArgument(
          "program.offload: found units of {} stages and {} resident units, "
          "expected a unit for each bucket of {} stages and at least 1",
          offload.units.size(), offload.resident_units, stages);
    }
  }
  if (program.buckets.size() != stages) {
    return InvalidArgument(
        "program.buckets: found {} entries, expected one per stage: {}",
        program.buckets.size(), stages);
  }
  std::map<std::pair<int32_t, int32_t>, size_t> taken;
  for (size_t stage = 0; stage < stages; ++stage) {
    const StageLocation& at = program.stages[stage];
    if (at.rank < 0 || at.rank >= program.num_ranks() || at.chunk < 0 ||
        at.chunk >= static_cast<int32_t>(stages)) {
      return InvalidArgument(
          "program.stages[{}]: found rank {} chunk {}, expected a rank below "
          "{} and a chunk below {}",
          stage, at.rank, at.chunk, program.num_ranks(), stages);
    }
    const auto [other, free] = taken.insert({{at.rank, at.chunk}, stage});
    if (!free) {
      return InvalidArgument(
          "program.stages[{}]: found rank {} chunk {}, which is stage {}; "
          "expected another",
          stage, at.rank, at.chunk, other->second);
    }
  }
  RETURN_IF_ERROR(ValidateRoutes(program));
  // The chunks of a rank must be 0, 1, ... without a gap: in the map's order
  // they follow one another.
  int32_t rank = -1;
  int32_t next = 0;
  for (const auto& [at, stage] : taken) {
    if (at.first != rank) next = 0;
    rank = at.first;
    if (at.second != next) {
      return InvalidArgument("program.stages[{}]: found chunk {}, expected {}",
                             stage, at.second, next);
    }
    ++next;
  }
  return absl::OkStatus();
}

bool IsMessage(const Instruction& instruction) {
  return TraitsOf(instruction.kind).operand == Operand::kMessage;
}

// The fields that the kind has are in range.
absl::Status ValidateFields(const Program& program, int32_t rank, int32_t index,
                            const std::vector<int32_t>& stage_of,
                            const Instruction& instruction) {
  const KindTraits& traits = TraitsOf(instruction.kind);
  auto check = [&](std::string_view field, int32_t value, int32_t end) {
    return CheckRange(program, rank, index, field, value, end);
  };
  if (!traits.has_chunk) return absl::OkStatus();
  const int32_t chunks = static_cast<int32_t>(stage_of.size());
  RETURN_IF_ERROR(check("chunk", instruction.chunk, chunks));
  const int32_t stage = stage_of[instruction.chunk];
  if (traits.unit == UnitOperand::kAlways ||
      (traits.unit == UnitOperand::kWithOffload &&
       program.offload.has_value())) {
    RETURN_IF_ERROR(check("unit", instruction.unit, program.UnitsOf(stage)));
  } else if (instruction.unit >= 0) {
    return InstructionError(program, rank, index,
                            fmt::format("unit {}", instruction.unit), "none");
  }
  switch (traits.operand) {
    case Operand::kNothing:
      return absl::OkStatus();
    case Operand::kBucket:
      return check("bucket", instruction.bucket, program.buckets[stage]);
    case Operand::kMicrobatch:
    case Operand::kMessage:
      break;
  }
  RETURN_IF_ERROR(
      check("microbatch", instruction.microbatch, program.microbatches));
  if (traits.operand == Operand::kMicrobatch) return absl::OkStatus();
  RETURN_IF_ERROR(check("hop", instruction.hop,
                        program.StopsOf(instruction.microbatch) - 1));
  if (instruction.payload == Payload::kNone) {
    return InstructionError(program, rank, index, "no payload",
                            "activation or gradient");
  }
  return check("peer", instruction.peer, program.num_ranks());
}

// Messages of one payload from one rank to another, by number: hop times
// microbatches plus microbatch, in the order of the lists.
struct MessageQueue {
  std::vector<int32_t> sends, receives;
};
using ChannelKey = std::tuple<int32_t, int32_t, Payload>;  // sender, receiver

int32_t NumberOf(const Program& program, const Instruction& message) {
  return message.hop * program.microbatches + message.microbatch;
}

// Where the message of the number is last in its sender's or its receiver's
// list.
int32_t IndexOf(const Program& program, const ChannelKey& channel,
                InstructionKind kind, int32_t number) {
  const auto [from, to, payload] = channel;
  const bool sends = kind == InstructionKind::kSend;
  const std::vector<Instruction>& list = program.ranks[sends ? from : to];
  auto i = static_cast<int32_t>(list.size()) - 1;
  while (i >= 0 && (list[i].kind != kind || list[i].payload != payload ||
                    list[i].peer != (sends ? to : from) ||
                    NumberOf(program, list[i]) != number)) {
    --i;
  }
  return i;
}

// The first difference between its sends and its receives.
absl::Status ChannelError(const Program& program, const ChannelKey& key,
                          const MessageQueue& channel) {
  const auto [from, to, payload] = key;
  const std::vector<int32_t>& sends = channel.sends;
  const std::vector<int32_t>& receives = channel.receives;
  const auto [send_at, receive_at] = std::mismatch(
      sends.begin(), sends.end(), receives.begin(), receives.end());
  const size_t k = send_at - sends.begin();
  const int32_t send =
      send_at == sends.end()
          ? -1
          : IndexOf(program, key, InstructionKind::kSend, *send_at);
  const int32_t receive =
      receive_at == receives.end()
          ? -1
          : IndexOf(program, key, InstructionKind::kRecv, *receive_at);
  if (receive_at == receives.end()) {
    return InstructionError(
        program, from, send,
        fmt::format("{} sends but {} receives on rank {}", sends.size(), k, to),
        "a receive for each send");
  }
  if (send_at == sends.end()) {
    return InstructionError(program, to, receive,
                            fmt::format("{} receives but {} sends on rank {}",
                                        receives.size(), k, from),
                            "a send for each receive");
  }
  const Instruction& sent = program.ranks[from][send];
  const Instruction& received = program.ranks[to][receive];
  return InstructionError(
      program, to, receive,
      fmt::format("mb={} hop={} as message {} of the channel",
                  received.microbatch, received.hop, k),
      fmt::format("mb={} hop={}, as {} has it", sent.microbatch, sent.hop,
                  Describe(program, from, send)));
}

// The messages of the lists, which must be valid by themselves.
class Channels {
 public:
  explicit Channels(const Program& program) : program_(program) {}

  // Of one rank; each joins the stages that its hop does.
  absl::Status Add(int32_t rank);
  // Once all ranks are here: each send meets a receive, in order.
  absl::Status Match();

 private:
  const Program& program_;
  std::map<ChannelKey, MessageQueue> queues_;
};

absl::Status Channels::Add(int32_t rank) {
  const std::vector<Instruction>& list = program_.ranks[rank];
  // Those that the rank used last: most lists have one of each sort.
  struct Used {
    int32_t peer = -1;
    std::vector<int32_t>* messages = nullptr;
  };
  std::array<std::array<Used, 3>, 2> used;  // [sends][payload]
  for (int32_t i = 0; i < static_cast<int32_t>(list.size()); ++i) {
    const Instruction& message = list[i];
    if (!IsMessage(message)) continue;
    // Activations go from stop hop to hop + 1, gradients back.
    const bool sends = message.kind == InstructionKind::kSend;
    const bool up = (message.payload == Payload::kActivation) == sends;
    const auto at = [&](int32_t stop) -> const StageLocation& {
      return program_.stages[program_.StageAt(message.microbatch, stop)];
    };
    const StageLocation& here = at(message.hop + (up ? 0 : 1));
    const StageLocation& there = at(message.hop + (up ? 1 : 0));
    if (here.rank != rank || here.chunk != message.chunk ||
        there.rank != message.peer || there.rank == rank) {
      return InstructionError(
          program_, rank, i,
          fmt::format("hop {} between it and rank {}", message.hop,
                      message.peer),
          fmt::format("hop {} to join rank {} chunk {} and rank {}, apart",
                      message.hop, here.rank, here.chunk, there.rank));
    }
    Used& last = used[sends ? 1 : 0][static_cast<size_t>(message.payload)];
    if (last.peer != message.peer) {
      MessageQueue& queue =
          queues_[{sends ? rank : message.peer, sends ? message.peer : rank,
                   message.payload}];
      last = {message.peer, sends ? &queue.sends : &queue.receives};
    }
    last.messages->push_back(NumberOf(program_, message));
  }
  return absl::OkStatus();
}

absl::Status Channels::Match() {
  for (auto& [key, queue] : queues_) {
    // Whose microbatches have routes of their own may meet them in any order.
    if (!program_.routes.empty()) {
      std::sort(queue.sends.begin(), queue.sends.end());
      std::sort(queue.receives.begin(), queue.receives.end());
    }
    if (queue.sends != queue.receives) {
      return ChannelError(program_, key, queue);
    }
  }
  return absl::OkStatus();
}

// The fields and dependencies of one rank's list.
absl::Status ValidateList(const Program& program, int32_t rank) {
  const std::vector<Instruction>& list = program.ranks[rank];
  const std::vector<int32_t> stage_of = StagesOnRank(program, rank);
  for (int32_t i = 0; i < static_cast<int32_t>(list.size()); ++i) {
    RETURN_IF_ERROR(ValidateFields(program, rank, i, stage_of, list[i]));
    for (const int32_t dependency : list[i].depends_on) {
      if (dependency < 0 || dependency >= i) {
        return InstructionError(
            program, rank, i,
            fmt::format("a dependency on instruction {}", dependency),
            "dependencies on instructions before it (a cycle otherwise)");
      }
      if (list[dependency].kind == InstructionKind::kSend) {
        return InstructionError(
            program, rank, i,
            fmt::format("a dependency on the send at {}", dependency),
            "dependencies on anything but sends");
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::string Describe(const Program& program, int32_t rank, int32_t index) {
  return fmt::format("rank {} instruction {} '{}'", rank, index,
                     ToText(program.ranks[rank][index]));
}

absl::Status RankChecks::CheckDependsOn(int32_t index, int32_t on,
                                        std::string_view what) const {
  if (DependsOn(list_[index], on)) return absl::OkStatus();
  return Error(index, fmt::format("no dependency on {}", what),
               fmt::format("one on instruction {}", on));
}

absl::Status InstructionError(const Program& program, int32_t rank,
                              int32_t index, std::string_view found,
                              std::string_view expected) {
  return InvalidArgument("{}: found {}, expected {}",
                         Describe(program, rank, index), found, expected);
}

absl::Status ValidateLists(
    const Program& program,
    const std::function<absl::Status(int32_t rank)>& then) {
  RETURN_IF_ERROR(ValidateStages(program));
  Channels channels(program);
  for (int32_t rank = 0; rank < program.num_ranks(); ++rank) {
    RETURN_IF_ERROR(ValidateList(program, rank));
    RETURN_IF_ERROR(channels.Add(rank));
    if (then) RETURN_IF_ERROR(then(rank));
  }
  return channels.Match();
}

absl::Status ValidateProgram(const Program& program) {
  RETURN_IF_ERROR(ValidateLists(program));
  RETURN_IF_ERROR(ValidateWork(program));
  RETURN_IF_ERROR(ValidateEndOfStep(program));
  RETURN_IF_ERROR(ValidateResidency(program));
  return ValidateProgress(program);
}

absl::Status CheckMemoryModel(const Program& program,
                              const MemoryModel& memory) {
  if (memory.ranks.size() != program.ranks.size()) {
    return InvalidArgument("memory model: found {} ranks, expected {}",
                           memory.ranks.size(), program.ranks.size());
  }
  std::vector<size_t> chunks_on(program.ranks.size(), 0);
  for (const StageLocation& at : program.stages) ++chunks_on[at.rank];
  for (size_t rank = 0; rank < program.ranks.size(); ++rank) {
    if (memory.ranks[rank].chunks.size() == chunks_on[rank]) continue;
    return InvalidArgument(
        "memory model of rank {}: found {} chunks, expected {}", rank,
        memory.ranks[rank].chunks.size(), chunks_on[rank]);
  }
  return absl::OkStatus();
}

absl::Status ValidateMemory(const Program& program, const MemoryModel& memory) {
  RETURN_IF_ERROR(CheckMemoryModel(program, memory));
  for (int32_t rank = 0; rank < program.num_ranks(); ++rank) {
    const RankMemory& model = memory.ranks[rank];
    const RankPeak peak = PeakInListOrder(program, rank, model);
    const int64_t total = peak.at_peak.total();
    if (model.limit_bytes == 0 || total <= model.limit_bytes) continue;
    const std::string where = program.ranks[rank].empty()
                                  ? fmt::format("rank {}", rank)
                                  : Describe(program, rank, peak.instruction);
    return ResourceExhausted(
        "{}: found a peak of {}, expected at most {}: {} too many", where,
        ToText(peak.at_peak), model.limit_bytes, total - model.limit_bytes);
  }
  return absl::OkStatus();
}

}  // namespace trireme
