// Communicators: collectives and messages over a group of ranks.
//
// Every operation is asynchronous: it returns an Event. It begins after what
// the current stream of its tensors' device was given before, and only what is
// given to streams that have waited for the event comes after it: nothing else
// may touch its tensors. The communicator keeps them alive until then, and its
// destructor completes what nobody waited for. All
// ranks of a group issue the same collectives in the same order. One
// communicator serves one (group, purpose), so that collectives of different
// purposes never have to agree on an order between them.
//
// On a dry device an operation counts its bytes and moves nothing.
//
// Each operation has a name ("dp gradient bucket 3"), the same on all ranks of
// a collective; with the communicator's deadline it is what a hang is reported
// by: a Wait() past the deadline on any rank ends the job with a table of all
// ranks, which says who waits for whom in what (comm/hang_table.h). Deadlines
// are generous (default 10 minutes).
//
// The public methods check arguments, count traffic and then start the
// operation: all that an implementation overrides is Start. There are comm/mpi
// (processes), comm/threads (N ranks as threads of one process: unit tests of
// parallel code), comm/single (a group of one), comm/dry (any group, without
// its other ranks, for dry devices) and comm/stand_in (the same on real
// devices, for timing one rank).

#ifndef TRIREME_RUNTIME_COMM_COMMUNICATOR_H_
#define TRIREME_RUNTIME_COMM_COMMUNICATOR_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "runtime/comm/operation.h"
#include "runtime/comm/traffic.h"
#include "runtime/device/event.h"
#include "runtime/device/tensor.h"

namespace trireme {

class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  // This process's rank in the group, and the group's size.
  int rank() const { return rank_; }
  int size() const { return size_; }
  // Group and purpose, e.g. "tp activations [0-1]".
  const std::string& name() const { return name_; }

  // From now on. All ranks of the group say the same.
  void UseReduceOrder(ReduceOrder order) { reduce_order_ = order; }

  // In place. The result is the same on every rank, and, unless UseReduceOrder
  // says otherwise, that of sums in rank order, those of bf16 in fp32 with one
  // rounding at the end: the same in every run, bit for bit.
  Event AllReduce(const Tensor& data, ReduceOp op, std::string_view name) {
    return Run({.kind = Operation::Kind::kAllReduce,
                .name = name,
                .input = data,
                .output = data,
                .reduce = op});
  }
  // input[size·n, ..] → output[n, ..]: rank i gets the sum of slice i.
  Event ReduceScatter(const Tensor& input, const Tensor& output,
                      std::string_view name) {
    return Run({.kind = Operation::Kind::kReduceScatter,
                .name = name,
                .input = input,
                .output = output});
  }
  // input[n, ..] → output[size·n, ..], rank i's input at slice i.
  Event AllGather(const Tensor& input, const Tensor& output,
                  std::string_view name) {
    return Run({.kind = Operation::Kind::kAllGather,
                .name = name,
                .input = input,
                .output = output});
  }
  // Slice j of input goes to rank j; slice i of output comes from rank i.
  Event AllToAll(const Tensor& input, const Tensor& output,
                 std::string_view name) {
    return Run({.kind = Operation::Kind::kAllToAll,
                .name = name,
                .input = input,
                .output = output});
  }
  // As AllToAll with given counts of leading-dim rows.
  Event AllToAllV(const Tensor& input, std::span<const int64_t> send_rows,
                  const Tensor& output, std::span<const int64_t> receive_rows,
                  std::string_view name) {
    return Run({.kind = Operation::Kind::kAllToAllV,
                .name = name,
                .input = input,
                .output = output,
                .send_rows = send_rows,
                .receive_rows = receive_rows});
  }
  Event Broadcast(const Tensor& data, int root, std::string_view name) {
    return Run({.kind = Operation::Kind::kBroadcast,
                .name = name,
                .input = data,
                .output = data,
                .root = root});
  }
  // Messages between two ranks match by tag, from 0 to max_tag(), and, among
  // equal tags, by order.
  Event Send(const Tensor& data, int to, int tag, std::string_view name) {
    return Run({.kind = Operation::Kind::kSend,
                .name = name,
                .input = data,
                .peer = to,
                .tag = tag});
  }
  Event Receive(const Tensor& data, int from, int tag, std::string_view name) {
    return Run({.kind = Operation::Kind::kReceive,
                .name = name,
                .output = data,
                .peer = from,
                .tag = tag});
  }
  // Returns when all ranks are there.
  void Barrier(std::string_view name) {
    Run({.kind = Operation::Kind::kBarrier, .name = name}).Synchronize();
  }

  // Any of the above, as a value: CHECKs its arguments, counts it, starts it.
  Event Run(Operation operation);

  CommunicationStatistics Statistics() const { return traffic_->Get(); }
  // That a user of the group sends so much less than it might.
  void CountSaved(int64_t bytes) { traffic_->CountSaved(bytes); }

  // The largest tag that messages may have.
  virtual int max_tag() const { return std::numeric_limits<int>::max(); }

  // For the table of a hang: what this process does from now on, beside
  // communication ("Forward mb=3 chunk=0"). The last call on any communicator
  // of the process counts.
  virtual void SetActivity(std::string_view /*activity*/) {}

 protected:
  Communicator(int rank, int size, std::string_view name);

  // Blocks until what Start has launched on a stream so far has run. For
  // destructors, which complete what was started.
  void AwaitLaunched() { launched_.Synchronize(); }

  // Of this communicator; Event::Wait counts into it by itself.
  TrafficCounter& traffic() { return *traffic_; }

 private:
  // Starts what Run has checked and counted. The current stream is the
  // device's for communication: what touches the tensors is launched on it,
  // and a result that is not in flight means done in its order. The tensors
  // stay alive until the result's Wait returns.
  virtual Event Start(Operation operation) = 0;

  void Check(const Operation& operation) const;
  int64_t SentBytes(const Operation& operation) const;

  const int rank_;
  const int size_;
  const std::string name_;
  ReduceOrder reduce_order_ = ReduceOrder::kRanks;
  // Of the stream that the last operation was launched on, where that works
  // beside the host.
  Event launched_;
  // Events may outlive their communicator.
  const std::shared_ptr<TrafficCounter> traffic_ =
      std::make_shared<TrafficCounter>();
};

// Who moves the data of operations in flight.
enum class Progress {
  // The calling thread while it waits: the lowest latency, no overlap.
  kWhileWaiting,
  // Also a thread of the process: operations go on behind computation.
  kBackground,
};

// Makes communicators for groups of the job's ranks. Every rank of `ranks`
// (world ranks, ascending or in placement order: the position is the group
// rank) calls Create with the same arguments, all ranks of the world in the
// same order of groups; ranks outside the group do not call. Communicators are
// destroyed before their factory.
class CommunicatorFactory {
 public:
  virtual ~CommunicatorFactory() = default;
  virtual int world_rank() const = 0;
  virtual int world_size() const = 0;
  // There are no other ranks, whatever the world's size: this one's
  // communicators only count (comm/dry) or make up what others would send.
  virtual bool imagined() const { return false; }
  virtual std::unique_ptr<Communicator> Create(std::span<const int> ranks,
                                               std::string_view name,
                                               Progress progress) = 0;
  std::unique_ptr<Communicator> Create(std::span<const int> ranks,
                                       std::string_view name) {
    return Create(ranks, name, Progress::kWhileWaiting);
  }
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_COMMUNICATOR_H_
