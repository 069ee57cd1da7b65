#include "runtime/comm/threads/thread_group.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "fmt/format.h"
#include "runtime/comm/hang_table.h"
#include "runtime/core/timeouts.h"

namespace trireme {
namespace {

using Kind = Operation::Kind;
using Parts = std::vector<std::shared_ptr<ThreadOperation>>;

char* Bytes(const Tensor& tensor) {
  return static_cast<char*>(tensor.raw_data());
}

void Copy(char* to, const char* from, int64_t bytes) {
  if (bytes > 0 && to != from) std::memmove(to, from, bytes);
}

void AllReduceParts(const Parts& parts) {
  std::vector<const void*> sources;
  for (const auto& part : parts) {
    sources.push_back(part->operation.input.raw_data());
  }
  const Tensor& first = parts[0]->operation.input;
  Reduce(sources, first.raw_data(), first.num_elements(), first.dtype(),
         parts[0]->operation.reduce);
  for (const auto& part : parts) {
    Copy(Bytes(part->operation.input), Bytes(first), first.bytes());
  }
}

void ReduceScatterParts(const Parts& parts) {
  for (size_t i = 0; i < parts.size(); ++i) {
    const Tensor& output = parts[i]->operation.output;
    std::vector<const void*> sources;
    for (const auto& part : parts) {
      sources.push_back(Bytes(part->operation.input) + i * output.bytes());
    }
    Reduce(sources, output.raw_data(), output.num_elements(), output.dtype(),
           ReduceOp::kSum);
  }
}

void AllGatherParts(const Parts& parts) {
  for (const auto& to : parts) {
    for (size_t i = 0; i < parts.size(); ++i) {
      const Tensor& input = parts[i]->operation.input;
      Copy(Bytes(to->operation.output) + i * input.bytes(), Bytes(input),
           input.bytes());
    }
  }
}

void AllToAllParts(const Parts& parts) {
  for (size_t j = 0; j < parts.size(); ++j) {
    char* to = Bytes(parts[j]->operation.output);
    for (const auto& from : parts) {
      const char* source = Bytes(from->operation.input);
      for (size_t k = 0; k < j; ++k) source += from->send_bytes[k];
      CHECK_EQ(from->send_bytes[j], parts[j]->receive_bytes[from->rank])
          << from->note->text << ": bytes from rank " << from->rank
          << " to rank " << j << ", as each of them says";
      Copy(to, source, from->send_bytes[j]);
      to += from->send_bytes[j];
    }
  }
}

void BroadcastParts(const Parts& parts) {
  const Tensor& root = parts[parts[0]->operation.root]->operation.input;
  for (const auto& part : parts) {
    Copy(Bytes(part->operation.input), Bytes(root), root.bytes());
  }
}

void Execute(const Parts& parts) {
  switch (parts[0]->operation.kind) {
    case Kind::kAllReduce:
      return AllReduceParts(parts);
    case Kind::kReduceScatter:
      return ReduceScatterParts(parts);
    case Kind::kAllGather:
      return AllGatherParts(parts);
    case Kind::kAllToAll:
    case Kind::kAllToAllV:
      return AllToAllParts(parts);
    case Kind::kBroadcast:
      return BroadcastParts(parts);
    case Kind::kBarrier:
      return;
    case Kind::kSend:
    case Kind::kReceive:
      LOG(FATAL) << "messages meet in pairs";
  }
}

// True where two ranks' parts may belong to one collective.
bool Match(const Operation& a, const Operation& b) {
  if (a.kind != b.kind || a.reduce != b.reduce || a.root != b.root) {
    return false;
  }
  if (a.kind == Kind::kBarrier) return true;
  return a.input.dtype() == b.input.dtype() &&
         (a.kind == Kind::kAllToAllV ||
          a.input.num_elements() == b.input.num_elements());
}

}  // namespace

ThreadWorldState::ThreadWorldState(int size) : returned(size, false) {
  for (int rank = 0; rank < size; ++rank) {
    registries.push_back(std::make_unique<WaitRegistry>(rank));
  }
}

std::string ThreadWorldState::Table() const {
  std::vector<std::optional<HangReport>> reports;
  for (const auto& registry : registries) {
    reports.emplace_back(registry->Report());
  }
  return HangTable(reports);
}

void ThreadOperation::Wait() { group->Wait(*this); }

bool ThreadOperation::Test() { return group->Test(*this); }

ThreadGroup::ThreadGroup(std::shared_ptr<ThreadWorldState> world,
                         std::vector<int> ranks, std::string name)
    : world_(std::move(world)),
      ranks_(std::move(ranks)),
      name_(std::move(name)) {}

void ThreadGroup::Start(const std::shared_ptr<ThreadOperation>& operation) {
  std::lock_guard lock(world_->mutex);
  if (operation->operation.message()) {
    StartMessage(operation);
  } else {
    StartCollective(operation);
  }
}

void ThreadGroup::StartCollective(
    const std::shared_ptr<ThreadOperation>& operation) {
  Parts& parts = collectives_[operation->sequence];
  parts.resize(size());
  for (const auto& other : parts) {
    CHECK(!other || Match(other->operation, operation->operation))
        << "ranks of '" << name_ << "' disagree about collective "
        << operation->sequence << ": rank " << other->rank << " runs "
        << other->note->text << ", rank " << operation->rank << " runs "
        << operation->note->text << "\n"
        << world_->Table();
  }
  parts[operation->rank] = operation;
  if (std::count(parts.begin(), parts.end(), nullptr) > 0) return;
  Execute(parts);
  for (const auto& part : parts) part->done = true;
  collectives_.erase(operation->sequence);
  world_->changed.notify_all();
}

void ThreadGroup::StartMessage(
    const std::shared_ptr<ThreadOperation>& operation) {
  const Operation& own = operation->operation;
  const auto other = std::find_if(
      messages_.begin(), messages_.end(), [&](const auto& candidate) {
        const Operation& that = candidate->operation;
        return that.kind != own.kind && that.tag == own.tag &&
               candidate->rank == own.peer && that.peer == operation->rank;
      });
  if (other == messages_.end()) {
    messages_.push_back(operation);
    return;
  }
  const bool sends = own.kind == Kind::kSend;
  const ThreadOperation& sender = sends ? *operation : **other;
  const ThreadOperation& receiver = sends ? **other : *operation;
  const Tensor& from = sender.operation.input;
  const Tensor& to = receiver.operation.output;
  CHECK(from.dtype() == to.dtype() && from.num_elements() == to.num_elements())
      << "'" << name_ << "': " << sender.note->text << " of " << from.shape()
      << " " << from.dtype() << " meets " << receiver.note->text << " of "
      << to.shape() << " " << to.dtype();
  Copy(Bytes(to), Bytes(from), from.bytes());
  operation->done = true;
  (*other)->done = true;
  messages_.erase(other);
  world_->changed.notify_all();
}

std::vector<int> ThreadGroup::Missing(const ThreadOperation& operation) const {
  if (operation.operation.message()) return {operation.operation.peer};
  const auto found = collectives_.find(operation.sequence);
  std::vector<int> missing;
  for (int rank = 0; rank < size(); ++rank) {
    if (found == collectives_.end() || !found->second[rank]) {
      missing.push_back(rank);
    }
  }
  return missing;
}

std::string ThreadGroup::WaitText(const ThreadOperation& operation) const {
  return fmt::format(
      "rank {} of '{}' (world ranks {}) waits in {} for rank(s) {}",
      operation.rank, name_, RanksText(ranks_), operation.note->text,
      RanksText(Missing(operation)));
}

bool ThreadGroup::Abandoned(const ThreadOperation& operation) const {
  const std::vector<int> missing = Missing(operation);
  return std::any_of(missing.begin(), missing.end(),
                     [&](int rank) { return world_->returned[ranks_[rank]]; });
}

void ThreadGroup::Drain(int rank) {
  std::unique_lock lock(world_->mutex);
  const auto under_way = [&](const std::shared_ptr<ThreadOperation>& part) {
    return part && part->rank == rank && !Abandoned(*part);
  };
  const bool drained = world_->changed.wait_for(lock, Timeouts().drain, [&] {
    return std::none_of(messages_.begin(), messages_.end(), under_way) &&
           std::none_of(collectives_.begin(), collectives_.end(),
                        [&](const auto& collective) {
                          return under_way(collective.second[rank]);
                        });
  });
  // What is left would be done on tensors of a rank that has gone.
  CHECK(drained) << "rank " << rank << " of '" << name_
                 << "' ends with operations under way\n"
                 << world_->Table();
}

void ThreadGroup::Wait(const ThreadOperation& operation) {
  std::unique_lock lock(world_->mutex);
  if (operation.done) return;
  const WaitRegistry::Wait wait(registry(operation.rank), operation.note,
                                world_->deadline);
  const bool in_time = world_->changed.wait_for(lock, world_->deadline, [&] {
    return operation.done || Abandoned(operation);
  });
  CHECK(in_time) << "deadline of " << world_->deadline.count()
                 << " ms passed: " << WaitText(operation) << "\n"
                 << world_->Table();
  CHECK(operation.done) << "a peer has already returned: "
                        << WaitText(operation) << "\n"
                        << world_->Table();
}

bool ThreadGroup::Test(const ThreadOperation& operation) {
  std::lock_guard lock(world_->mutex);
  return operation.done;
}

}  // namespace trireme
