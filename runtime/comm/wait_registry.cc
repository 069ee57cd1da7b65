#include "runtime/comm/wait_registry.h"

#include "fmt/format.h"

namespace trireme {
namespace {

// Enough to see which collective a rank took for another's.
constexpr size_t kRecentOperations = 8;

double SecondsSince(WaitRegistry::Clock::time_point since) {
  return std::chrono::duration<double>(WaitRegistry::Clock::now() - since)
      .count();
}

}  // namespace

OperationNote NoteOf(const Operation& operation, int communicator,
                     std::span<const int> ranks, int64_t sequence) {
  using Kind = Operation::Kind;
  OperationNote note;
  note.text = OperationText(operation);
  note.communicator = communicator;
  // What ranks bring to a barrier or an all-to-all-v may differ.
  if (operation.kind != Kind::kBarrier && operation.kind != Kind::kAllToAllV) {
    note.bytes = operation.data().bytes();
  }
  if (operation.message()) {
    note.peer = ranks[operation.peer];
    note.tag = operation.tag;
    note.sends = operation.kind == Kind::kSend;
  } else {
    note.sequence = sequence;
  }
  return note;
}

WaitRegistry::WaitRegistry(int world_rank)
    : world_rank_(world_rank), activity_since_(Clock::now()) {}

int WaitRegistry::AddCommunicator(std::string_view name,
                                  std::span<const int> ranks) {
  Record record;
  record.name = std::string(name);
  record.ranks.assign(ranks.begin(), ranks.end());
  std::lock_guard lock(mutex_);
  record.occurrence = occurrences_[{record.name, record.ranks}]++;
  communicators_.emplace(next_communicator_, std::move(record));
  return next_communicator_++;
}

void WaitRegistry::RemoveCommunicator(int communicator) {
  std::lock_guard lock(mutex_);
  communicators_.erase(communicator);
}

void WaitRegistry::Started(std::shared_ptr<const OperationNote> note) {
  std::lock_guard lock(mutex_);
  Record& record = communicators_.at(note->communicator);
  if (note->collective()) record.collectives = note->sequence + 1;
  last_ = note;
  if (record.recent.size() == kRecentOperations) record.recent.pop_front();
  record.recent.push_back(std::move(note));
}

WaitRegistry::Wait::Wait(WaitRegistry& registry,
                         std::shared_ptr<const OperationNote> note,
                         std::chrono::nanoseconds deadline)
    : registry_(registry) {
  std::lock_guard lock(registry_.mutex_);
  entry_ = registry_.waits_.insert(registry_.waits_.end(),
                                   {std::move(note), Clock::now(), deadline});
}

WaitRegistry::Wait::~Wait() {
  std::lock_guard lock(registry_.mutex_);
  registry_.waits_.erase(entry_);
}

void WaitRegistry::SetActivity(std::string_view activity) {
  std::lock_guard lock(mutex_);
  activity_ = activity;
  activity_since_ = Clock::now();
}

void WaitRegistry::SetFinished() {
  std::lock_guard lock(mutex_);
  finished_ = true;
  activity_since_ = Clock::now();
}

void WaitRegistry::SetFailure(std::string text) {
  std::lock_guard lock(mutex_);
  if (!failure_.has_value()) failure_ = std::move(text);
}

std::optional<std::string> WaitRegistry::Alarm() const {
  std::lock_guard lock(mutex_);
  if (failure_.has_value()) return failure_;
  const auto now = Clock::now();
  for (const Entry& wait : waits_) {
    if (now - wait.since < wait.deadline) continue;
    const auto record = communicators_.find(wait.note->communicator);
    return fmt::format(
        "deadline of {:.1f} s passed waiting for {} on '{}'",
        std::chrono::duration<double>(wait.deadline).count(), wait.note->text,
        record == communicators_.end() ? "?" : record->second.name);
  }
  return std::nullopt;
}

HangReport WaitRegistry::Report() const {
  HangReport report;
  std::lock_guard lock(mutex_);
  report.rank = world_rank_;
  report.activity = activity_;
  report.activity_seconds = SecondsSince(activity_since_);
  report.finished = finished_;
  report.failure = failure_.value_or("");
  std::map<int, int> index_of;
  const auto operation = [&](const OperationNote& note) {
    const auto index = index_of.find(note.communicator);
    return CommunicationOperation{
        .text = note.text,
        .communicator = index == index_of.end() ? -1 : index->second,
        .bytes = note.bytes,
        .sequence = note.sequence,
        .peer = note.peer,
        .tag = note.tag,
        .sends = note.sends};
  };
  for (const auto& [id, record] : communicators_) {
    index_of[id] = static_cast<int>(report.communicators.size());
    report.communicators.push_back({.name = record.name,
                                    .ranks = record.ranks,
                                    .occurrence = record.occurrence,
                                    .collectives_started = record.collectives});
    for (const auto& note : record.recent) {
      report.recent.push_back(operation(*note));
    }
  }
  if (last_) report.last = operation(*last_);
  for (const Entry& wait : waits_) {
    report.waits.push_back({operation(*wait.note), SecondsSince(wait.since)});
  }
  return report;
}

}  // namespace trireme
