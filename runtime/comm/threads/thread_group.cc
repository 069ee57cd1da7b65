#include "runtime/comm/threads/thread_group.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "fmt/format.h"
#include "runtime/comm/hang_table.h"

namespace trireme {
namespace {

using Clock = std::chrono::steady_clock;
using Parts = std::vector<std::shared_ptr<ThreadOperation>>;

char* Bytes(const Tensor& tensor) {
  return static_cast<char*>(tensor.raw_data());
}

void Copy(char* to, const char* from, int64_t bytes) {
  if (bytes > 0 && to != from) std::memmove(to, from, bytes);
}

void AllReduceParts(const Parts& parts) {
  std::vector<const void*> sources;
  for (const auto& part : parts) sources.push_back(part->input.raw_data());
  const Tensor& first = parts[0]->input;
  Reduce(sources, first.raw_data(), first.num_elements(), first.dtype(),
         parts[0]->reduce);
  for (const auto& part : parts) {
    Copy(Bytes(part->input), Bytes(first), first.bytes());
  }
}

void ReduceScatterParts(const Parts& parts) {
  for (size_t i = 0; i < parts.size(); ++i) {
    const Tensor& output = parts[i]->output;
    std::vector<const void*> sources;
    for (const auto& part : parts) {
      sources.push_back(Bytes(part->input) + i * output.bytes());
    }
    Reduce(sources, output.raw_data(), output.num_elements(), output.dtype(),
           ReduceOp::kSum);
  }
}

void AllGatherParts(const Parts& parts) {
  for (const auto& to : parts) {
    for (size_t i = 0; i < parts.size(); ++i) {
      const Tensor& input = parts[i]->input;
      Copy(Bytes(to->output) + i * input.bytes(), Bytes(input), input.bytes());
    }
  }
}

void AllToAllParts(const Parts& parts) {
  for (size_t j = 0; j < parts.size(); ++j) {
    char* to = Bytes(parts[j]->output);
    for (const auto& from : parts) {
      const char* source = Bytes(from->input);
      for (size_t k = 0; k < j; ++k) source += from->send_bytes[k];
      CHECK_EQ(from->send_bytes[j], parts[j]->receive_bytes[from->rank])
          << from->text << ": bytes from rank " << from->rank << " to rank "
          << j << ", as each of them says";
      Copy(to, source, from->send_bytes[j]);
      to += from->send_bytes[j];
    }
  }
}

void BroadcastParts(const Parts& parts) {
  const Tensor& root = parts[parts[0]->root]->input;
  for (const auto& part : parts) {
    Copy(Bytes(part->input), Bytes(root), root.bytes());
  }
}

void Execute(const Parts& parts) {
  switch (parts[0]->kind) {
    case CollectiveKind::kAllReduce:
      return AllReduceParts(parts);
    case CollectiveKind::kReduceScatter:
      return ReduceScatterParts(parts);
    case CollectiveKind::kAllGather:
      return AllGatherParts(parts);
    case CollectiveKind::kAllToAll:
      return AllToAllParts(parts);
    case CollectiveKind::kBroadcast:
      return BroadcastParts(parts);
    case CollectiveKind::kBarrier:
      return;
  }
}

// True where two ranks' parts may belong to one collective.
bool Match(const ThreadOperation& a, const ThreadOperation& b) {
  if (a.kind != b.kind || a.reduce != b.reduce || a.root != b.root) {
    return false;
  }
  if (a.kind == CollectiveKind::kBarrier) return true;
  return a.input.dtype() == b.input.dtype() &&
         (a.kind == CollectiveKind::kAllToAll ||
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

void ThreadOperation::Wait() {
  const auto begin = Clock::now();
  group->Wait(*this);
  traffic->CountExposed(std::chrono::nanoseconds(Clock::now() - begin).count());
}

bool ThreadOperation::Test() { return group->Test(*this); }

ThreadGroup::ThreadGroup(std::shared_ptr<ThreadWorldState> world,
                         std::vector<int> ranks, std::string name)
    : world_(std::move(world)),
      ranks_(std::move(ranks)),
      name_(std::move(name)) {}

void ThreadGroup::Start(const std::shared_ptr<ThreadOperation>& operation) {
  std::lock_guard lock(world_->mutex);
  if (operation->message) {
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
    CHECK(!other || Match(*other, *operation))
        << "ranks of '" << name_ << "' disagree about collective "
        << operation->sequence << ": rank " << other->rank << " runs "
        << other->text << ", rank " << operation->rank << " runs "
        << operation->text << "\n"
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
  const auto other = std::find_if(
      messages_.begin(), messages_.end(), [&](const auto& candidate) {
        return candidate->sends != operation->sends &&
               candidate->tag == operation->tag &&
               candidate->rank == operation->peer &&
               candidate->peer == operation->rank;
      });
  if (other == messages_.end()) {
    messages_.push_back(operation);
    return;
  }
  const ThreadOperation& sender = operation->sends ? *operation : **other;
  const ThreadOperation& receiver = operation->sends ? **other : *operation;
  CHECK(sender.input.dtype() == receiver.output.dtype() &&
        sender.input.num_elements() == receiver.output.num_elements())
      << "'" << name_ << "': " << sender.text << " of " << sender.input.shape()
      << " " << sender.input.dtype() << " meets " << receiver.text << " of "
      << receiver.output.shape() << " " << receiver.output.dtype();
  Copy(Bytes(receiver.output), Bytes(sender.input), sender.input.bytes());
  operation->done = true;
  (*other)->done = true;
  messages_.erase(other);
  world_->changed.notify_all();
}

std::vector<int> ThreadGroup::Missing(const ThreadOperation& operation) const {
  if (operation.message) return {operation.peer};
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
      operation.rank, name_, RanksText(ranks_), operation.text,
      RanksText(Missing(operation)));
}

void ThreadGroup::Wait(const ThreadOperation& operation) {
  std::unique_lock lock(world_->mutex);
  const auto abandoned = [&] {
    if (operation.done) return false;
    const std::vector<int> missing = Missing(operation);
    return std::any_of(missing.begin(), missing.end(), [&](int rank) {
      return world_->returned[ranks_[rank]];
    });
  };
  if (operation.done) return;
  const WaitRegistry::Wait wait(registry(operation.rank), operation.note,
                                world_->deadline);
  const bool in_time = world_->changed.wait_for(
      lock, world_->deadline, [&] { return operation.done || abandoned(); });
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
