#include "scheduler/simulator/layout.h"

#include <numeric>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "runtime/core/status.h"
#include "scheduler/program/validator.h"

namespace trireme {
namespace {

void AddLinks(const Program& program, SimulatedProgram& result) {
  const int32_t hops = result.Hops();
  absl::flat_hash_map<std::pair<int32_t, int32_t>, int32_t> link_of;
  for (const int32_t direction : {0, 1}) {
    for (int32_t hop = 0; hop < hops; ++hop) {
      const int32_t from = program.stages[hop + direction].rank;
      const int32_t to = program.stages[hop + 1 - direction].rank;
      const auto [found, is_new] = link_of.try_emplace(
          {from, to}, static_cast<int32_t>(result.links.size()));
      if (is_new) result.links.push_back({.from = from, .to = to});
      result.link_of_lane.push_back(found->second);
    }
  }
  result.num_messages =
      static_cast<int32_t>(result.link_of_lane.size()) * program.microbatches;
}

// Whether all later instructions of the list wait for it to end.
bool EndsBeforeLater(const Instruction& instruction) {
  return TraitsOf(instruction.kind).operand != Operand::kMessage &&
         instruction.resource == Resource::kCompute;
}

int32_t DependencyOf(const std::vector<Instruction>& list,
                     const Instruction& instruction) {
  // It may start inside the backward that it depends on.
  if (instruction.kind == InstructionKind::kReduceGradients) {
    return SimulatedInstruction::kSeveral;
  }
  const bool waits_for_compute = !RunsBesideCompute(instruction.resource);
  int32_t only = SimulatedInstruction::kNone;
  for (const int32_t dependency : instruction.depends_on) {
    if (waits_for_compute && EndsBeforeLater(list[dependency])) continue;
    if (only != SimulatedInstruction::kNone) {
      return SimulatedInstruction::kSeveral;
    }
    only = dependency;
  }
  return only;
}

// `sent`: by message.
absl::Status AddList(const Program& program, int32_t rank,
                     std::vector<bool>& sent, SimulatedProgram& result) {
  using Kind = SimulatedInstruction::Kind;
  const std::vector<Instruction>& list = program.ranks[rank];
  std::vector<SimulatedInstruction>& out = result.lists.emplace_back();
  out.reserve(list.size());
  for (int32_t i = 0; i < static_cast<int32_t>(list.size()); ++i) {
    const Instruction& instruction = list[i];
    SimulatedInstruction made;
    made.resource = instruction.resource;
    made.dependency = DependencyOf(list, instruction);
    switch (instruction.kind) {
      case InstructionKind::kSend:
      case InstructionKind::kRecv: {
        const bool down = instruction.payload == Payload::kGradient;
        const int32_t lane = instruction.hop + (down ? result.Hops() : 0);
        made.operand = lane * program.microbatches + instruction.microbatch;
        if (instruction.kind == InstructionKind::kSend) {
          made.kind = Kind::kSend;
          if (sent[made.operand]) {
            return InstructionError(program, rank, i,
                                    "the message a second time",
                                    "each message once");
          }
          sent[made.operand] = true;
          result.links[result.link_of_lane[lane]].Append(made.operand);
        } else {
          made.kind = Kind::kRecv;
        }
        break;
      }
      case InstructionKind::kClipGradients:
        made.kind = Kind::kClip;
        break;
      default:
        made.operand = result.CostIndex(rank, instruction);
    }
    out.push_back(made);
  }
  return absl::OkStatus();
}

// All but the lists.
SimulatedProgram WithoutLists(const Program& program) {
  SimulatedProgram result;
  result.program = &program;
  std::vector<int32_t> chunks(program.ranks.size(), 0);
  for (const StageLocation& at : program.stages) ++chunks[at.rank];
  result.first_chunk.push_back(0);
  for (const int32_t count : chunks) {
    result.first_chunk.push_back(result.first_chunk.back() + count);
  }
  result.buckets.resize(program.stages.size());
  for (size_t stage = 0; stage < program.stages.size(); ++stage) {
    const auto& [rank, chunk] = program.stages[stage];
    result.buckets[result.first_chunk[rank] + chunk] = program.buckets[stage];
  }
  if (program.offload.has_value()) {
    std::vector<int32_t> units(program.stages.size());
    for (size_t stage = 0; stage < program.stages.size(); ++stage) {
      const auto& [rank, chunk] = program.stages[stage];
      units[result.first_chunk[rank] + chunk] = program.offload->units[stage];
    }
    result.first_unit.push_back(0);
    for (const int32_t count : units) {
      result.first_unit.push_back(result.first_unit.back() + count);
    }
  }
  AddLinks(program, result);
  result.lists.reserve(program.ranks.size());
  return result;
}

}  // namespace

void SimulatedProgram::Link::Append(int32_t number) {
  if (count == 0) first = number;
  if (messages.empty() && number != first + count) {
    messages.resize(count);
    std::iota(messages.begin(), messages.end(), first);
  }
  if (number != first + count || !messages.empty()) messages.push_back(number);
  ++count;
}

absl::StatusOr<SimulatedProgram> LayOut(const Program& program) {
  SimulatedProgram result = WithoutLists(program);
  std::vector<bool> sent(result.num_messages);
  for (int32_t rank = 0; rank < program.num_ranks(); ++rank) {
    RETURN_IF_ERROR(AddList(program, rank, sent, result));
  }
  return result;
}

absl::StatusOr<SimulatedProgram> ValidateAndLayOut(const Program& program) {
  SimulatedProgram result;
  std::vector<bool> sent;
  RETURN_IF_ERROR(ValidateLists(program, [&](int32_t rank) {
    if (rank == 0) {
      result = WithoutLists(program);
      sent.resize(result.num_messages);
    }
    return AddList(program, rank, sent, result);
  }));
  return result;
}

}  // namespace trireme
