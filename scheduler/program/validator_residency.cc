// ValidateResidency: what is on the devices of a Program with offload.

#include <algorithm>
#include <map>
#include <string_view>
#include <vector>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "scheduler/program/validator.h"

namespace trireme {
namespace {

constexpr int32_t kNone = -1;

// The units of one rank as its list runs.
class RankResidency : RankChecks {
 public:
  RankResidency(const Program& program, int32_t rank)
      : RankChecks(program, rank), places_(program.offload->resident_units) {
    for (const int32_t stage : stage_of_) {
      units_.emplace_back(program.offload->units[stage]);
    }
  }

  absl::Status Validate() {
    for (int32_t i = 0; i < static_cast<int32_t>(list_.size()); ++i) {
      RETURN_IF_ERROR(Visit(i));
    }
    return CheckEnd();
  }

 private:
  // Of what a Forward has kept of its input, until the Backward: what took it
  // away and brought it back.
  struct InputState {
    int32_t forward = kNone;
    int32_t saved = kNone;
    int32_t loaded = kNone;
  };
  struct UnitState {
    bool resident = false;
    bool was_resident = false;  // in the step so far
    int32_t fetched = kNone;    // what brought it
    int32_t used = kNone;       // last compute or Fetch since it is there
    int32_t updated = kNone;
    int32_t gradients = kNone;  // in buffers_, until they are saved
    int32_t saved = kNone;
    // By microbatch.
    std::map<int32_t, InputState> inputs;
  };
  // Of gradients that are on the device: the last Backward that added to them,
  // and their SaveGradients.
  struct BufferUse {
    int32_t backward = kNone;
    int32_t saved = kNone;
  };

  absl::Status Visit(int32_t index) {
    const Instruction& instruction = list_[index];
    switch (instruction.kind) {
      case InstructionKind::kForward:
        StateOf(instruction).inputs[instruction.microbatch] = {.forward =
                                                                   index};
        return VisitCompute(index, instruction);
      case InstructionKind::kBackward:
        RETURN_IF_ERROR(VisitCompute(index, instruction));
        RETURN_IF_ERROR(VisitInput(index, instruction));
        return VisitBackward(index, instruction);
      case InstructionKind::kSaveActivation:
        return VisitSaveActivation(index, instruction);
      case InstructionKind::kLoadActivation:
        return VisitLoadActivation(index, instruction);
      case InstructionKind::kSaveGradients:
        return VisitSave(index, instruction);
      case InstructionKind::kFetch:
        return VisitFetch(index, instruction);
      case InstructionKind::kRelease:
        return VisitRelease(index, instruction);
      case InstructionKind::kClipGradients:
        return VisitClip(index);
      case InstructionKind::kUpdate:
        StateOf(instruction).updated = index;
        return absl::OkStatus();
      default:
        return absl::OkStatus();
    }
  }

  UnitState& StateOf(const Instruction& instruction) {
    return units_[instruction.chunk][instruction.unit];
  }

  absl::Status VisitCompute(int32_t index, const Instruction& instruction) {
    UnitState& unit = StateOf(instruction);
    if (!unit.resident) {
      return Error(index, "its unit not on the device", "a Fetch before it");
    }
    RETURN_IF_ERROR(CheckDependsOn(index, unit.fetched, "its unit's Fetch"));
    unit.used = index;
    return absl::OkStatus();
  }

  // What it keeps of the microbatch's input; null: its Forward has not run, or
  // its Backward has.
  InputState* InputOf(const Instruction& instruction) {
    std::map<int32_t, InputState>& inputs = StateOf(instruction).inputs;
    const auto found = inputs.find(instruction.microbatch);
    return found == inputs.end() ? nullptr : &found->second;
  }

  absl::Status VisitSaveActivation(int32_t index,
                                   const Instruction& instruction) {
    InputState* const input = InputOf(instruction);
    if (input == nullptr || input->saved != kNone) {
      return Error(index,
                   input == nullptr
                       ? "no Forward whose input is there"
                       : fmt::format("it after instruction {}", input->saved),
                   "one SaveActivation between a Forward and its Backward");
    }
    RETURN_IF_ERROR(
        CheckDependsOn(index, input->forward, "the Forward that it is of"));
    input->saved = index;
    return absl::OkStatus();
  }

  absl::Status VisitLoadActivation(int32_t index,
                                   const Instruction& instruction) {
    InputState* const input = InputOf(instruction);
    if (input == nullptr || input->saved == kNone || input->loaded != kNone) {
      return Error(index, "no SaveActivation that it brings back",
                   "one before each LoadActivation");
    }
    RETURN_IF_ERROR(CheckDependsOn(index, input->saved, "its SaveActivation"));
    input->loaded = index;
    return absl::OkStatus();
  }

  // Of a Backward.
  absl::Status VisitInput(int32_t index, const Instruction& instruction) {
    std::map<int32_t, InputState>& inputs = StateOf(instruction).inputs;
    const auto found = inputs.find(instruction.microbatch);
    if (found == inputs.end()) return absl::OkStatus();
    const InputState input = found->second;
    inputs.erase(found);
    if (input.saved == kNone) return absl::OkStatus();
    if (input.loaded == kNone) {
      return Error(
          index,
          fmt::format("its input away since instruction {}", input.saved),
          "a LoadActivation before it");
    }
    return CheckDependsOn(index, input.loaded, "its LoadActivation");
  }

  // Its gradients need a buffer, if the unit has none.
  absl::Status VisitBackward(int32_t index, const Instruction& instruction) {
    UnitState& unit = StateOf(instruction);
    if (unit.gradients != kNone) {
      buffers_[unit.gradients].backward = index;
      return absl::OkStatus();
    }
    unit.gradients = static_cast<int32_t>(buffers_.size());
    buffers_.push_back({.backward = index});
    if (buffers_.size() <= Offload::kGradientBuffers) return absl::OkStatus();
    const BufferUse& before =
        buffers_[buffers_.size() - 1 - Offload::kGradientBuffers];
    if (before.saved != kNone && DependsOn(instruction, before.saved)) {
      return absl::OkStatus();
    }
    return Error(index, "no dependency that frees a buffer for its gradients",
                 fmt::format("one on the SaveGradients of instruction {}",
                             before.backward));
  }

  absl::Status VisitSave(int32_t index, const Instruction& instruction) {
    UnitState& unit = StateOf(instruction);
    if (unit.gradients != kNone) {
      BufferUse& buffer = buffers_[unit.gradients];
      if (list_[buffer.backward].microbatch == instruction.microbatch &&
          DependsOn(instruction, buffer.backward)) {
        buffer.saved = unit.saved = index;
        unit.gradients = kNone;
        return absl::OkStatus();
      }
    }
    return Error(index, "no Backward that it depends on and alone saves",
                 "one of the same microbatch and unit before it, the unit's "
                 "last");
  }

  absl::Status VisitFetch(int32_t index, const Instruction& instruction) {
    UnitState& unit = StateOf(instruction);
    if (unit.resident) {
      return Error(index, "its unit on the device already",
                   "a Release of it before");
    }
    if (unit.updated == kNone) {
      return Error(index, "no Update of its unit before it", "one");
    }
    if (!unit.was_resident) {
      RETURN_IF_ERROR(CheckDependsOn(index, unit.updated, "its unit's Update"));
    }
    const auto freed = std::find_if(
        released_.begin(), released_.end(),
        [&](int32_t release) { return DependsOn(instruction, release); });
    if (freed != released_.end()) {
      released_.erase(freed);
    } else if (places_ > 0) {
      --places_;
    } else {
      return Error(index, "no place on the device for its unit",
                   fmt::format("a dependency on the Release of one of the {} "
                               "units there",
                               program_.offload->resident_units));
    }
    unit.resident = unit.was_resident = true;
    unit.fetched = unit.used = index;
    return absl::OkStatus();
  }

  absl::Status VisitRelease(int32_t index, const Instruction& instruction) {
    UnitState& unit = StateOf(instruction);
    if (!unit.resident) {
      return Error(index, "its unit not on the device", "a unit that is");
    }
    RETURN_IF_ERROR(CheckDependsOn(index, unit.used, "its unit's last use"));
    unit.resident = false;
    unit.fetched = unit.used = kNone;
    released_.push_back(index);
    return absl::OkStatus();
  }

  absl::Status VisitClip(int32_t index) {
    for (const BufferUse& buffer : buffers_) {
      if (buffer.saved != kNone) continue;
      return Error(index,
                   fmt::format("no SaveGradients of instruction {} before it",
                               buffer.backward),
                   "the gradients of every backward on the host");
    }
    for (const std::vector<UnitState>& chunk : units_) {
      for (const UnitState& unit : chunk) {
        if (unit.saved == kNone) continue;
        RETURN_IF_ERROR(
            CheckDependsOn(index, unit.saved, "a unit's last SaveGradients"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status CheckEnd() const {
    for (size_t chunk = 0; chunk < units_.size(); ++chunk) {
      for (size_t i = 0; i < units_[chunk].size(); ++i) {
        if (!units_[chunk][i].resident) continue;
        return InvalidArgument(
            "rank {} at the end: found chunk {} unit {} on the device, "
            "expected "
            "a Release of each, as the next step begins with its Update",
            rank_, chunk, i);
      }
    }
    return absl::OkStatus();
  }

  std::vector<std::vector<UnitState>> units_;  // [chunk][unit]
  // Never taken so far; and Releases whose places nothing has taken yet.
  int32_t places_;
  std::vector<int32_t> released_;
  // In the order in which they were taken.
  std::vector<BufferUse> buffers_;
};

}  // namespace

absl::Status ValidateResidency(const Program& program) {
  if (!program.offload.has_value()) return absl::OkStatus();
  for (int32_t rank = 0; rank < program.num_ranks(); ++rank) {
    RETURN_IF_ERROR(RankResidency(program, rank).Validate());
  }
  return absl::OkStatus();
}

}  // namespace trireme
