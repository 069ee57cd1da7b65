#include "scheduler/program/offload_pass.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "runtime/core/log.h"

namespace trireme {
namespace {

constexpr int32_t kNone = -1;

bool IsCompute(const Instruction& instruction) {
  return instruction.kind == InstructionKind::kForward ||
         instruction.kind == InstructionKind::kBackward;
}

// The units of one rank, numbered, and the order in which it computes with
// them.
struct UnitOrder {
  std::vector<Unit> units;
  std::vector<int32_t> first;  // [chunk]: number of its unit 0
  std::vector<int32_t> uses;   // [use]: number of the unit

  int32_t NumberOf(int32_t chunk, int32_t unit) const {
    return first[chunk] + unit;
  }
};

UnitOrder OrderOf(const Program& program, int32_t rank) {
  UnitOrder order;
  const std::vector<int32_t> stages = StagesOnRank(program, rank);
  for (int32_t chunk = 0; chunk < static_cast<int32_t>(stages.size());
       ++chunk) {
    order.first.push_back(static_cast<int32_t>(order.units.size()));
    for (int32_t unit = 0; unit < program.buckets[stages[chunk]]; ++unit) {
      order.units.push_back({.chunk = chunk, .unit = unit});
    }
  }
  for (const Instruction& instruction : program.ranks[rank]) {
    CHECK(instruction.kind != InstructionKind::kBackwardInput);
    CHECK(instruction.kind != InstructionKind::kBackwardWeight);
    if (!IsCompute(instruction)) continue;
    const int32_t units = program.buckets[stages[instruction.chunk]];
    for (int32_t i = 0; i < units; ++i) {
      const bool forward = instruction.kind == InstructionKind::kForward;
      order.uses.push_back(
          order.NumberOf(instruction.chunk, forward ? i : units - 1 - i));
    }
  }
  return order;
}

// A place on the device that passes from one unit to another.
struct Exchange {
  int32_t released = 0;  // numbers of units
  int32_t fetched = 0;
};

// What is on one rank's device when.
struct Residency {
  std::vector<int32_t> at_start;  // numbers, in the order of their first use
  std::vector<int32_t> at_end;
  // [use]: after it.
  std::vector<std::vector<Exchange>> exchanges;
};

Residency Belady(const UnitOrder& order, int32_t resident_units) {
  const auto uses = static_cast<int32_t>(order.uses.size());
  const size_t units = order.units.size();
  // next_use[use]: of the same unit, in the next step where it is beyond uses.
  std::vector<int32_t> next_use(uses, 0);
  std::vector<int32_t> next(units, 0);
  for (int32_t turn = 0; turn < 2; ++turn) {
    for (int32_t use = uses - 1; use >= 0; --use) {
      next_use[use] = next[order.uses[use]];
      next[order.uses[use]] = turn == 0 ? uses + use : use;
    }
  }
  Residency residency;
  residency.exchanges.resize(uses);
  // Of units on the device; next[] is now each unit's first use.
  std::vector<int32_t> last(units, kNone);
  std::vector<bool> resident(units, false);
  std::vector<int32_t> held;
  for (int32_t use = 0; use < uses; ++use) {
    const int32_t unit = order.uses[use];
    if (!resident[unit]) {
      resident[unit] = true;
      if (static_cast<int32_t>(held.size()) < resident_units) {
        residency.at_start.push_back(unit);
        held.push_back(unit);
      } else {
        // The copy hides behind the use before this one, whose unit stays.
        const auto stays =
            std::find(held.begin(), held.end(), order.uses[use - 1]);
        std::iter_swap(stays, held.end() - 1);
        const auto furthest = std::max_element(
            held.begin(), held.end() - (held.size() > 1 ? 1 : 0),
            [&](int32_t a, int32_t b) { return next[a] < next[b]; });
        resident[*furthest] = false;
        residency.exchanges[last[*furthest]].push_back(
            {.released = *furthest, .fetched = unit});
        *furthest = unit;
      }
    }
    last[unit] = use;
    next[unit] = next_use[use];
  }
  residency.at_end = std::move(held);
  return residency;
}

// Writes the new list of one rank.
class RankPass {
 public:
  RankPass(const Program& program, int32_t rank, int32_t resident_units,
           std::vector<Instruction>& list)
      : program_(program),
        stages_(StagesOnRank(program, rank)),
        order_(OrderOf(program, rank)),
        residency_(Belady(order_, resident_units)),
        old_(program.ranks[rank]),
        list_(list),
        fetched_(order_.units.size(), kNone),
        used_(order_.units.size(), kNone),
        last_save_(order_.units.size(), kNone) {}

  // Returns what is on the device at the start.
  std::vector<Unit> Run() {
    // Of each old instruction, what those after it wait for.
    std::vector<int32_t> ends;
    for (const Instruction& old : old_) {
      Instruction instruction = old;
      for (int32_t& dependency : instruction.depends_on) {
        dependency = ends[dependency];
      }
      switch (instruction.kind) {
        case InstructionKind::kForward:
        case InstructionKind::kBackward:
          Compute(std::move(instruction));
          ends.push_back(computed_);
          break;
        case InstructionKind::kClipGradients:
          // The norm is of what all microbatches have added up on the host.
          for (const int32_t save : last_save_) {
            if (save != kNone) instruction.depends_on.push_back(save);
          }
          ReleaseLast();
          ends.push_back(Append(std::move(instruction)));
          break;
        case InstructionKind::kReduceGradients: {
          // The same holds for the sums over ranks.
          const int32_t save = last_save_[order_.NumberOf(
              instruction.chunk, UnitOfBucket(instruction))];
          CHECK_NE(save, kNone) << "gradients are reduced before any backward";
          instruction.depends_on.push_back(save);
          ends.push_back(Append(std::move(instruction)));
          break;
        }
        case InstructionKind::kUpdate:
          ends.push_back(Update(std::move(instruction)));
          break;
        default:
          ends.push_back(Append(std::move(instruction)));
      }
    }
    std::vector<Unit> at_start;
    for (const int32_t unit : residency_.at_start) {
      at_start.push_back(order_.units[unit]);
    }
    return at_start;
  }

 private:
  int32_t Append(Instruction instruction) {
    list_.push_back(std::move(instruction));
    return static_cast<int32_t>(list_.size()) - 1;
  }

  // One instruction for each unit, of which the first reads the input.
  void Compute(Instruction whole) {
    const bool forward = whole.kind == InstructionKind::kForward;
    const int32_t units = program_.buckets[stages_[whole.chunk]];
    for (int32_t i = 0; i < units; ++i) {
      Instruction part = MakeCompute(whole.kind, whole.microbatch, whole.chunk);
      part.unit = forward ? i : units - 1 - i;
      if (i == 0) {
        part.depends_on = whole.depends_on;
      } else {
        part.depends_on.push_back(computed_);
      }
      const int32_t unit = order_.NumberOf(part.chunk, part.unit);
      if (fetched_[unit] != kNone) part.depends_on.push_back(fetched_[unit]);
      if (!forward && saves_.size() >= Offload::kGradientBuffers) {
        part.depends_on.push_back(
            saves_[saves_.size() - Offload::kGradientBuffers]);
      }
      computed_ = used_[unit] = Append(std::move(part));
      for (const Exchange& exchange : residency_.exchanges[use_]) {
        fetched_[exchange.fetched] =
            Fetch(exchange.fetched, Release(exchange.released));
      }
      ++use_;
      if (forward) continue;
      Instruction save = MakeUnitCopy(InstructionKind::kSaveGradients,
                                      order_.units[unit], whole.microbatch);
      save.depends_on.push_back(computed_);
      last_save_[unit] = Append(std::move(save));
      saves_.push_back(last_save_[unit]);
    }
  }

  int32_t Release(int32_t unit) {
    Instruction release =
        MakeUnitCopy(InstructionKind::kRelease, order_.units[unit]);
    release.depends_on.push_back(used_[unit]);
    return Append(std::move(release));
  }

  int32_t Fetch(int32_t unit, int32_t released) {
    Instruction fetch =
        MakeUnitCopy(InstructionKind::kFetch, order_.units[unit]);
    fetch.depends_on.push_back(released);
    return Append(std::move(fetch));
  }

  // What is left on the device has had its last use: its parameters are old
  // once they are updated.
  void ReleaseLast() {
    for (const int32_t unit : residency_.at_end) {
      free_.push_back(Release(unit));
    }
  }

  int32_t UnitOfBucket(const Instruction& instruction) const {
    return program_.buckets[stages_[instruction.chunk]] - 1 -
           instruction.bucket;
  }

  // On the host; then what the next step starts with comes back.
  int32_t Update(Instruction update) {
    update.unit = UnitOfBucket(update);
    update.resource = Resource::kHost;
    const int32_t unit = order_.NumberOf(update.chunk, update.unit);
    const int32_t updated = Append(std::move(update));
    const std::vector<int32_t>& at_start = residency_.at_start;
    if (std::find(at_start.begin(), at_start.end(), unit) != at_start.end()) {
      const int32_t fetch = Fetch(unit, free_.back());
      free_.pop_back();
      list_[fetch].depends_on.push_back(updated);
    }
    return updated;
  }

  const Program& program_;
  const std::vector<int32_t> stages_;  // [chunk]
  const UnitOrder order_;
  const Residency residency_;
  const std::vector<Instruction>& old_;
  std::vector<Instruction>& list_;
  int32_t use_ = 0;
  // Indices in the new list: of the last compute instruction; of what brought
  // each unit (kNone: it was there), what used it last, and its last
  // SaveGradients; of all SaveGradients; of releases whose places are free.
  int32_t computed_ = kNone;
  std::vector<int32_t> fetched_;
  std::vector<int32_t> used_;
  std::vector<int32_t> last_save_;
  std::vector<int32_t> saves_;
  std::vector<int32_t> free_;
};

}  // namespace

Program OffloadUnits(const Program& program, int32_t resident_units) {
  CHECK_GE(resident_units, 1);
  CHECK(!program.offload.has_value());
  Program result;
  result.ranks.resize(program.ranks.size());
  result.stages = program.stages;
  result.microbatches = program.microbatches;
  result.buckets = program.buckets;
  Offload offload;
  offload.units = program.buckets;
  offload.resident_units = resident_units;
  for (int32_t rank = 0; rank < program.num_ranks(); ++rank) {
    offload.at_start.push_back(
        RankPass(program, rank, resident_units, result.ranks[rank]).Run());
  }
  result.offload = std::move(offload);
  return result;
}

}  // namespace trireme
