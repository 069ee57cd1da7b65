#include "scheduler/program/offload_pass.h"

#include <algorithm>
#include <deque>
#include <initializer_list>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

constexpr int32_t kNone = -1;

bool IsCompute(const Instruction& instruction) {
  return instruction.kind == InstructionKind::kForward ||
         instruction.kind == InstructionKind::kBackward;
}

// Computations of whole chunks that are divided into units together: of each
// unit all microbatches, then of the next.
struct UnitRun {
  InstructionKind kind = InstructionKind::kForward;
  int32_t chunk = 0;
  std::vector<int32_t> instructions;  // in the list
};

// One for each computation, or for those that follow one another.
std::vector<UnitRun> RunsOf(const std::vector<Instruction>& list,
                            bool unit_major) {
  std::vector<UnitRun> runs;
  for (size_t i = 0; i < list.size(); ++i) {
    if (!IsCompute(list[i])) continue;
    const bool joins =
        unit_major && i > 0 && !runs.empty() &&
        runs.back().instructions.back() + 1 == static_cast<int32_t>(i) &&
        runs.back().kind == list[i].kind && runs.back().chunk == list[i].chunk;
    if (!joins) runs.push_back({list[i].kind, list[i].chunk, {}});
    runs.back().instructions.push_back(static_cast<int32_t>(i));
  }
  return runs;
}

// The units of one rank, numbered, and the order in which it computes with
// them.
struct UnitOrder {
  std::vector<Unit> units;
  std::vector<int32_t> first;  // [chunk]: number of its unit 0
  std::vector<int32_t> uses;   // [use]: number of the unit
  // [use]: its microbatch and whether it goes forward.
  std::vector<int32_t> microbatches;
  std::vector<bool> forward;

  int32_t NumberOf(int32_t chunk, int32_t unit) const {
    return first[chunk] + unit;
  }
};

UnitOrder OrderOf(const Program& program, int32_t rank,
                  const std::vector<UnitRun>& runs) {
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
    CHECK(instruction.kind != InstructionKind::kGatherParameters);
  }
  for (const UnitRun& run : runs) {
    const int32_t units = program.buckets[stages[run.chunk]];
    for (int32_t i = 0; i < units; ++i) {
      const bool forward = run.kind == InstructionKind::kForward;
      for (const int32_t index : run.instructions) {
        order.uses.push_back(
            order.NumberOf(run.chunk, forward ? i : units - 1 - i));
        order.microbatches.push_back(program.ranks[rank][index].microbatch);
        order.forward.push_back(forward);
      }
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
  std::vector<int32_t> at_end;  // numbers of units
  // [use]: after it. Who is in none comes to a place that nothing has had yet.
  std::vector<std::vector<Exchange>> exchanges;
};

Residency Belady(const UnitOrder& order, int32_t resident_units) {
  const auto uses = static_cast<int32_t>(order.uses.size());
  const size_t units = order.units.size();
  // next_use[use]: of the same unit; behind all where the step has none.
  std::vector<int32_t> next_use(uses, uses);
  std::vector<int32_t> next(units, uses);
  for (int32_t use = uses - 1; use >= 0; --use) {
    next_use[use] = std::exchange(next[order.uses[use]], use);
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
        held.push_back(unit);
      } else {
        // The copy hides behind the use before this one, whose unit stays.
        const auto stays =
            std::find(held.begin(), held.end(), order.uses[use - 1]);
        std::iter_swap(stays, held.end() - 1);
        // Of those that the step does not need any more the one that has been
        // through for longest: its place is free first.
        const auto furthest = std::max_element(
            held.begin(), held.end() - (held.size() > 1 ? 1 : 0),
            [&](int32_t a, int32_t b) {
              return std::pair(next[a], -last[a]) <
                     std::pair(next[b], -last[b]);
            });
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

// From the forward of a unit to its backward, in uses: one that stays for no
// longer would come back before it has left.
constexpr int32_t kLeastAway = 4;

// Which inputs of units leave the device: backward[use] of the forward that
// keeps it, kNone where it stays; and forward[use] of that backward.
struct Departures {
  std::vector<int32_t> backward;
  std::vector<int32_t> forward;
};

Departures DeparturesOf(const UnitOrder& order, bool activations) {
  const size_t uses = order.uses.size();
  Departures departures{std::vector<int32_t>(uses, kNone),
                        std::vector<int32_t>(uses, kNone)};
  if (!activations) return departures;
  absl::flat_hash_map<std::pair<int32_t, int32_t>, int32_t> forwards;
  for (int32_t use = 0; use < static_cast<int32_t>(uses); ++use) {
    const std::pair key(order.uses[use], order.microbatches[use]);
    if (order.forward[use]) {
      forwards[key] = use;
    } else if (const int32_t before = forwards.at(key);
               use - before >= kLeastAway) {
      departures.backward[before] = use;
      departures.forward[use] = before;
    }
  }
  return departures;
}

// Writes the new list of one rank.
class RankPass {
 public:
  RankPass(const Program& program, int32_t rank, int32_t resident_units,
           const OffloadOptions& options, std::vector<Instruction>& list)
      : program_(program),
        stages_(StagesOnRank(program, rank)),
        runs_(RunsOf(program.ranks[rank], options.unit_major)),
        order_(OrderOf(program, rank, runs_)),
        residency_(Belady(order_, resident_units)),
        departures_(DeparturesOf(order_, options.activations)),
        old_(program.ranks[rank]),
        list_(list),
        updated_(order_.units.size(), kNone),
        place_(order_.units.size(), kNone),
        fetched_(order_.units.size(), kNone),
        used_(order_.units.size(), kNone),
        last_save_(order_.units.size(), kNone),
        moved_(order_.uses.size(), kNone) {}

  void Run() {
    auto run = runs_.begin();
    for (size_t i = 0; i < old_.size(); ++i) {
      Instruction instruction = Renumbered(old_[i]);
      switch (instruction.kind) {
        case InstructionKind::kForward:
        case InstructionKind::kBackward:
          Compute(*run++);
          i = ends_.size() - 1;
          break;
        case InstructionKind::kClipGradients:
          // The norm is of what all microbatches have added up on the host.
          for (const int32_t save : last_save_) {
            if (save != kNone) instruction.depends_on.push_back(save);
          }
          ReleaseLast();
          ends_.push_back(Append(std::move(instruction)));
          break;
        case InstructionKind::kReduceGradients: {
          // The same holds for the sums over ranks.
          const int32_t save = last_save_[order_.NumberOf(
              instruction.chunk, UnitOfBucket(instruction))];
          CHECK_NE(save, kNone) << "gradients are reduced before any backward";
          instruction.depends_on.push_back(save);
          ends_.push_back(Append(std::move(instruction)));
          break;
        }
        case InstructionKind::kUpdate:
          // Nothing is left to wait for it.
          ends_.push_back(kNone);
          break;
        default:
          ends_.push_back(Append(std::move(instruction)));
      }
    }
  }

 private:
  int32_t Append(Instruction instruction) {
    list_.push_back(std::move(instruction));
    return static_cast<int32_t>(list_.size()) - 1;
  }

  // With its dependencies in the new list.
  Instruction Renumbered(Instruction old) const {
    for (int32_t& dependency : old.depends_on) dependency = ends_[dependency];
    return old;
  }

  // One instruction for each unit and microbatch, of which a microbatch's first
  // reads its input.
  void Compute(const UnitRun& run) {
    const bool forward = run.kind == InstructionKind::kForward;
    const int32_t units = program_.buckets[stages_[run.chunk]];
    const size_t microbatches = run.instructions.size();
    std::vector<Instruction> wholes;
    for (const int32_t index : run.instructions) {
      wholes.push_back(Renumbered(old_[index]));
    }
    // Of each microbatch, the last so far.
    std::vector<int32_t> computed(microbatches, kNone);
    for (int32_t i = 0; i < units; ++i) {
      const int32_t index = forward ? i : units - 1 - i;
      const int32_t unit = order_.NumberOf(run.chunk, index);
      for (size_t m = 0; m < microbatches; ++m) {
        Instruction part =
            MakeCompute(run.kind, wholes[m].microbatch, run.chunk);
        part.unit = index;
        if (i == 0) {
          part.depends_on = wholes[m].depends_on;
        } else {
          part.depends_on.push_back(computed[m]);
        }
        Bring(unit);
        LoadAhead();
        part.depends_on.push_back(fetched_[unit]);
        if (departures_.forward[use_] != kNone) {
          part.depends_on.push_back(moved_[use_]);
        }
        if (!forward && m == 0 && saves_.size() >= Offload::kGradientBuffers) {
          part.depends_on.push_back(
              saves_[saves_.size() - Offload::kGradientBuffers]);
        }
        computed[m] = used_[unit] = last_computed_ = Append(std::move(part));
        if (departures_.backward[use_] != kNone) {
          moved_[use_] = MoveInput(InstructionKind::kSaveActivation, use_,
                                   {last_computed_});
        }
        for (const Exchange& exchange : residency_.exchanges[use_]) {
          place_[exchange.fetched] = Release(exchange.released);
          waiting_.push_back(exchange.fetched);
        }
        FetchWaiting();
        ++use_;
      }
      if (forward) continue;
      Instruction save =
          MakeUnitCopy(InstructionKind::kSaveGradients, order_.units[unit],
                       wholes.back().microbatch);
      save.depends_on.push_back(computed.back());
      last_save_[unit] = Append(std::move(save));
      saves_.push_back(last_save_[unit]);
    }
    ends_.insert(ends_.end(), computed.begin(), computed.end());
  }

  // Of the use's unit and microbatch.
  int32_t MoveInput(InstructionKind kind, int32_t use,
                    std::initializer_list<int32_t> after) {
    Instruction move = MakeUnitCopy(kind, order_.units[order_.uses[use]],
                                    order_.microbatches[use]);
    move.depends_on = after;
    return Append(std::move(move));
  }

  // Before a use: what the one after it needs.
  void LoadAhead() {
    const size_t next = static_cast<size_t>(use_) + 1;
    if (next >= order_.uses.size()) return;
    const int32_t forward = departures_.forward[next];
    if (forward == kNone) return;
    moved_[next] =
        MoveInput(InstructionKind::kLoadActivation, static_cast<int32_t>(next),
                  {moved_[forward], last_computed_});
  }

  int32_t Release(int32_t unit) {
    Instruction release =
        MakeUnitCopy(InstructionKind::kRelease, order_.units[unit]);
    release.depends_on.push_back(used_[unit]);
    return Append(std::move(release));
  }

  // Before a use.
  void Bring(int32_t unit) {
    if (updated_[unit] == kNone) Update(unit);
    const auto waiting = std::find(waiting_.begin(), waiting_.end(), unit);
    if (waiting != waiting_.end()) {
      waiting_.erase(waiting);
      Fetch(unit);
    } else if (fetched_[unit] == kNone) {
      Fetch(unit);
    }
    FetchWaiting();
  }

  // One that is to be updated first has time until its first use, and those
  // after it have time until then, too: whoever carries out the list updates
  // nothing before it has given the device what it can compute meanwhile.
  void FetchWaiting() {
    while (!waiting_.empty() && updated_[waiting_.front()] != kNone) {
      Fetch(waiting_.front());
      waiting_.pop_front();
    }
  }

  // To its place.
  void Fetch(int32_t unit) {
    Instruction fetch =
        MakeUnitCopy(InstructionKind::kFetch, order_.units[unit]);
    if (place_[unit] != kNone) fetch.depends_on.push_back(place_[unit]);
    if (fetched_[unit] == kNone) fetch.depends_on.push_back(updated_[unit]);
    fetched_[unit] = Append(std::move(fetch));
  }

  // What is left on the device has had its last use: its parameters are old
  // once they are updated.
  void ReleaseLast() {
    for (const int32_t unit : residency_.at_end) Release(unit);
  }

  int32_t UnitOfBucket(const Instruction& instruction) const {
    return program_.buckets[stages_[instruction.chunk]] - 1 -
           instruction.bucket;
  }

  // On the host, with the gradients of the step before.
  void Update(int32_t number) {
    const Unit& unit = order_.units[number];
    const int32_t units = program_.buckets[stages_[unit.chunk]];
    Instruction update =
        MakeBucket(InstructionKind::kUpdate, unit.chunk, units - 1 - unit.unit);
    update.unit = unit.unit;
    update.resource = Resource::kHost;
    updated_[number] = Append(std::move(update));
  }

  const Program& program_;
  const std::vector<int32_t> stages_;  // [chunk]
  const std::vector<UnitRun> runs_;
  const UnitOrder order_;
  const Residency residency_;
  const Departures departures_;
  const std::vector<Instruction>& old_;
  std::vector<Instruction>& list_;
  int32_t use_ = 0;
  // Indices in the new list: of each old instruction, what those after it wait
  // for; of each unit's Update, of the Release of its place (kNone: nothing was
  // there), of what brought it, what used it last, and its last SaveGradients;
  // of all SaveGradients.
  std::vector<int32_t> ends_;
  std::vector<int32_t> updated_;
  std::vector<int32_t> place_;
  std::vector<int32_t> fetched_;
  std::vector<int32_t> used_;
  std::vector<int32_t> last_save_;
  std::vector<int32_t> saves_;
  // Of a forward's or backward's use: the instruction that takes what it keeps
  // away, or brings it back; and of the use before this one.
  std::vector<int32_t> moved_;
  int32_t last_computed_ = kNone;
  // Units whose places are free, in the order in which they became so.
  std::deque<int32_t> waiting_;
};

}  // namespace

Program OffloadUnits(const Program& program, int32_t resident_units,
                     const OffloadOptions& options) {
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
    RankPass(program, rank, resident_units, options, result.ranks[rank]).Run();
  }
  result.offload = std::move(offload);
  return result;
}

}  // namespace trireme
