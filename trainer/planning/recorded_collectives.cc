#include "trainer/planning/recorded_collectives.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

namespace trireme {
namespace {

using Group = PieceCollective::Group;
using Kind = PieceCollective::Kind;

// By the purposes of parallel/grid/communicators.cc, or how they begin.
constexpr std::array<std::pair<std::string_view, Group>, 9> kGroups = {{
    {"tp activations", Group::kTensor},
    {"tp backward", Group::kTensor},
    {"cp activations", Group::kContext},
    {"cp heads", Group::kHeads},
    {"cp ring", Group::kRing},
    {"ep tokens in a node", Group::kExpertNode},
    {"ep tokens across nodes", Group::kExpertsAcrossNodes},
    {"ep tokens", Group::kExperts},
    {"ep slices", Group::kExpertSlices},
}};

std::optional<Group> GroupOf(std::string_view name) {
  for (const auto& [purpose, group] : kGroups) {
    if (name.starts_with(purpose)) return group;
  }
  return std::nullopt;
}

std::optional<Kind> KindOf(const Operation& operation) {
  switch (operation.kind) {
    case Operation::Kind::kAllReduce:
      return Kind::kAllReduce;
    case Operation::Kind::kReduceScatter:
      return Kind::kReduceScatter;
    case Operation::Kind::kAllGather:
      return Kind::kAllGather;
    case Operation::Kind::kAllToAll:
    case Operation::Kind::kAllToAllV:
      return Kind::kAllToAll;
    case Operation::Kind::kSend:
      return Kind::kRingStep;
    default:
      // A message is recorded where it is sent; no block asks for the others.
      return std::nullopt;
  }
}

// Of rows the rank with most sends or receives: whichever is more takes the
// time.
int64_t BytesOf(const Operation& operation) {
  switch (operation.kind) {
    case Operation::Kind::kAllGather:
      return operation.output.bytes();
    case Operation::Kind::kAllToAllV:
      return std::max(operation.input.bytes(), operation.output.bytes());
    default:
      return operation.input.bytes();
  }
}

}  // namespace

// An operation between its start and whoever waits for it.
class RecordingWorld::Flight final : public Event::Work {
 public:
  Flight(RecordingWorld& world, size_t index, Event inner)
      : world_(world),
        index_(index),
        started_(world.device_.stream().counted().product_flops),
        inner_(std::move(inner)) {}

  void Wait() override {
    world_.recorded_[index_].flops_behind =
        world_.device_.stream().counted().product_flops - started_;
    inner_.Synchronize();
  }
  bool Test() override { return inner_.Test(); }

 private:
  RecordingWorld& world_;
  const size_t index_;
  const int64_t started_;
  Event inner_;
};

class RecordingWorld::Recorder final : public Communicator {
 public:
  Recorder(std::unique_ptr<Communicator> inner, RecordingWorld& world)
      : Communicator(inner->rank(), inner->size(), inner->name()),
        inner_(std::move(inner)),
        world_(world),
        group_(GroupOf(name())) {}

 private:
  Event Start(Operation operation) override {
    const std::optional<Kind> kind = KindOf(operation);
    if (!group_.has_value() || !kind.has_value()) {
      return inner_->Run(std::move(operation));
    }
    world_.recorded_.push_back({.group = *group_,
                                .kind = *kind,
                                .bytes = BytesOf(operation),
                                .pass = world_.pass_});
    const size_t index = world_.recorded_.size() - 1;
    return Event(std::make_shared<Flight>(world_, index,
                                          inner_->Run(std::move(operation))));
  }

  const std::unique_ptr<Communicator> inner_;
  RecordingWorld& world_;
  const std::optional<Group> group_;
};

RecordingWorld::RecordingWorld(int ranks, Device& device)
    : dry_(0, ranks), device_(device) {}

std::unique_ptr<Communicator> RecordingWorld::Create(std::span<const int> ranks,
                                                     std::string_view name,
                                                     Progress progress) {
  std::unique_ptr<Communicator> inner = dry_.Create(ranks, name, progress);
  if (inner->size() == 1) return inner;
  return std::make_unique<Recorder>(std::move(inner), *this);
}

}  // namespace trireme
