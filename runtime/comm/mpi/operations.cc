#include "runtime/comm/mpi/operations.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"
#include "runtime/core/log.h"

namespace trireme {

MpiGroup::MpiGroup(std::shared_ptr<MpiEngine> engine_in,
                   std::vector<int> ranks_in, int rank_in, std::string name_in,
                   bool background_in)
    : engine(std::move(engine_in)),
      ranks(std::move(ranks_in)),
      rank(rank_in),
      name(std::move(name_in)),
      background(background_in),
      id(engine->registry().AddCommunicator(name, ranks)) {
  // The first of its collectives.
  const auto note = std::make_shared<const OperationNote>(
      OperationNote{.text = "creation", .communicator = id, .sequence = 0});
  engine->registry().Started(note);
  const WaitRegistry::Wait wait(engine->registry(), note, engine->deadline());
  engine->Exclusively([&] {
    const std::string what = fmt::format("creating '{}'", name);
    MPI_Group world;
    MPI_Group group;
    CheckMpi(MPI_Comm_group(MPI_COMM_WORLD, &world), what);
    CheckMpi(MPI_Group_incl(world, size(), ranks.data(), &group), what);
    CheckMpi(
        MPI_Comm_create_group(MPI_COMM_WORLD, group, /*tag=*/0, &communicator),
        what);
    CheckMpi(MPI_Comm_dup(communicator, &collectives), what);
    for (MPI_Comm each : {communicator, collectives}) {
      CheckMpi(MPI_Comm_set_errhandler(each, MPI_ERRORS_RETURN), what);
    }
    MPI_Group_free(&group);
    MPI_Group_free(&world);
  });
}

void MpiGroup::Close() {
  engine->Drain(this);
  engine->Exclusively([&] {
    MPI_Comm_free(&collectives);
    MPI_Comm_free(&communicator);
  });
  engine->registry().RemoveCommunicator(id);
}

MpiOperation::MpiOperation(std::shared_ptr<MpiGroup> group, OperationNote note)
    : MpiTask(group.get(), group->background,
              std::make_shared<const OperationNote>(std::move(note))),
      group_(std::move(group)) {}

TransferOperation::TransferOperation(std::shared_ptr<MpiGroup> group,
                                     OperationNote note, MPI_Comm communicator,
                                     int tag, std::vector<Transfer> transfers,
                                     std::vector<Tensor> tensors)
    : MpiOperation(group, std::move(note)),
      tag_(tag),
      transfers_(std::move(transfers)),
      tensors_(std::move(tensors)),
      messages_(*group->engine, communicator) {}

MpiTask::Step TransferOperation::Advance() {
  for (const Transfer& transfer : transfers_) {
    if (transfer.send) {
      messages_.Send(transfer.data, transfer.bytes, transfer.peer, tag_,
                     text());
    } else {
      messages_.Receive(transfer.data, transfer.bytes, transfer.peer, tag_,
                        text());
    }
  }
  transfers_.clear();
  return messages_.Test(text()) ? Step::kDone : Step::kWaits;
}

BroadcastOperation::BroadcastOperation(std::shared_ptr<MpiGroup> group,
                                       OperationNote note, int tag, Tensor data,
                                       int root)
    : MpiOperation(group, std::move(note)),
      tag_(tag),
      data_(std::move(data)),
      root_(root),
      messages_(*group->engine, group->collectives) {}

// Counted from the root, rank r > 0 gets the data from r without its highest
// bit, and passes it on to r + 2^k for all 2^k > r.
void BroadcastOperation::Receive() {
  const int size = group()->size();
  const int distance = (group()->rank - root_ + size) % size;
  if (distance == 0) return;
  int highest = 1;
  while (2 * highest <= distance) highest *= 2;
  messages_.Receive(data_.raw_data(), data_.bytes(),
                    (distance - highest + root_) % size, tag_, text());
}

void BroadcastOperation::SendOn() {
  const int size = group()->size();
  const int distance = (group()->rank - root_ + size) % size;
  for (int step = 1; distance + step < size; step *= 2) {
    if (step <= distance) continue;
    messages_.Send(data_.raw_data(), data_.bytes(),
                   (distance + step + root_) % size, tag_, text());
  }
}

MpiTask::Step BroadcastOperation::Advance() {
  if (phase_ == Phase::kStart) {
    Receive();
    phase_ = Phase::kReceiving;
  }
  if (!messages_.Test(text())) return Step::kWaits;
  if (phase_ == Phase::kSending) return Step::kDone;
  SendOn();
  phase_ = Phase::kSending;
  return messages_.Test(text()) ? Step::kDone : Step::kMoved;
}

ReductionOperation::ReductionOperation(std::shared_ptr<MpiGroup> group,
                                       OperationNote note, int tag,
                                       Tensor input, Tensor output, bool gather,
                                       ReduceOp op,
                                       const ReductionSegments& segments,
                                       Tensor staging)
    : MpiOperation(group, std::move(note)),
      tag_(tag),
      input_(std::move(input)),
      output_(std::move(output)),
      gather_(gather),
      op_(op),
      segments_(segments),
      staging_(std::move(staging)),
      element_bytes_(DTypeSize(input_.dtype())),
      sources_(group->size()) {
  for (int slot = 0; slot < segments_.slots; ++slot) {
    slots_.emplace_back(slot, *group);
  }
}

char* ReductionOperation::InputOf(int64_t element) const {
  return static_cast<char*>(input_.raw_data()) + element * element_bytes_;
}

char* ReductionOperation::StagingOf(int slot, int rank) const {
  const int row = rank < group()->rank ? rank : rank - 1;
  const int64_t at = (slot * (group()->size() - 1) + row) * segments_.length;
  return static_cast<char*>(staging_.raw_data()) + at * element_bytes_;
}

void ReductionOperation::Exchange(int index) {
  Slot& slot = slots_[index];
  const int size = group()->size();
  const int self = group()->rank;
  const auto own = segments_.RangeOf(slot.segment, self);
  const int tag = tag_ + 2 * index;
  for (int i = 1; i < size; ++i) {
    const int peer = (self + i) % size;
    slot.messages.Receive(StagingOf(index, peer), own.size() * element_bytes_,
                          peer, tag, text());
  }
  for (int i = 1; i < size; ++i) {
    const int peer = (self + size - i) % size;
    const auto range = segments_.RangeOf(slot.segment, peer);
    slot.messages.Send(InputOf(range.begin), range.size() * element_bytes_,
                       peer, tag, text());
  }
}

void ReductionOperation::ReduceOwn(int index) {
  const int64_t segment = slots_[index].segment;
  const int self = group()->rank;
  const auto own = segments_.RangeOf(segment, self);
  for (int rank = 0; rank < group()->size(); ++rank) {
    sources_[rank] = rank == self ? InputOf(own.begin) : StagingOf(index, rank);
  }
  void* out = gather_ ? InputOf(own.begin)
                      : static_cast<char*>(output_.raw_data()) +
                            segment * segments_.length * element_bytes_;
  Reduce(sources_, out, own.size(), input_.dtype(), op_);
}

void ReductionOperation::Gather(int index) {
  Slot& slot = slots_[index];
  const int size = group()->size();
  const int self = group()->rank;
  const auto own = segments_.RangeOf(slot.segment, self);
  const int tag = tag_ + 2 * index + 1;
  for (int i = 1; i < size; ++i) {
    const int peer = (self + i) % size;
    const auto range = segments_.RangeOf(slot.segment, peer);
    slot.messages.Receive(InputOf(range.begin), range.size() * element_bytes_,
                          peer, tag, text());
  }
  for (int i = 1; i < size; ++i) {
    const int peer = (self + size - i) % size;
    slot.messages.Send(InputOf(own.begin), own.size() * element_bytes_, peer,
                       tag, text());
  }
}

bool ReductionOperation::AdvanceSlot(int index) {
  Slot& slot = slots_[index];
  switch (slot.phase) {
    case Phase::kStart:
      if (slot.segment >= segments_.count) {
        slot.phase = Phase::kFinished;
        return true;
      }
      Exchange(index);
      slot.phase = Phase::kExchanging;
      return true;
    case Phase::kExchanging:
      if (!slot.messages.Test(text())) return false;
      ReduceOwn(index);
      if (gather_) {
        Gather(index);
        slot.phase = Phase::kGathering;
        return true;
      }
      slot.segment += segments_.slots;
      slot.phase = Phase::kStart;
      return true;
    case Phase::kGathering:
      if (!slot.messages.Test(text())) return false;
      slot.segment += segments_.slots;
      slot.phase = Phase::kStart;
      return true;
    case Phase::kFinished:
      return false;
  }
  return false;
}

MpiTask::Step ReductionOperation::Advance() {
  bool moved = false;
  bool finished = true;
  for (size_t i = 0; i < slots_.size(); ++i) {
    while (AdvanceSlot(static_cast<int>(i))) moved = true;
    finished = finished && slots_[i].phase == Phase::kFinished;
  }
  if (finished) return Step::kDone;
  return moved ? Step::kMoved : Step::kWaits;
}

MpiTask::Step BarrierOperation::Advance() {
  if (!started_) {
    group()->engine->Check(MPI_Ibarrier(group()->collectives, &request_),
                           text());
    started_ = true;
  }
  int complete = 0;
  group()->engine->Check(MPI_Test(&request_, &complete, MPI_STATUS_IGNORE),
                         text());
  return complete ? Step::kDone : Step::kWaits;
}

}  // namespace trireme
