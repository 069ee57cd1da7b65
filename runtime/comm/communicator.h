// Communicators: collectives and messages over a group of ranks.
//
// Every operation is asynchronous: it returns an Event, and its tensors may
// not be touched before Event::Wait() returns. The communicator keeps them
// alive until then, and its destructor completes what nobody waited for. All
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
// Implementations: comm/mpi (processes), comm/threads (N ranks as threads of
// one process: unit tests of parallel code), comm/single (a group of one),
// comm/dry (any group, without its other ranks, for dry devices) and
// comm/stand_in (the same on real devices, for timing one rank).

#ifndef TRIREME_RUNTIME_COMM_COMMUNICATOR_H_
#define TRIREME_RUNTIME_COMM_COMMUNICATOR_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/device/tensor.h"

namespace trireme {

enum class ReduceOp { kSum, kMax };

// A handle on an operation in flight. Default-constructed = already done.
class Event {
 public:
  class Operation {
   public:
    virtual ~Operation() = default;
    virtual void Wait() = 0;
    // Makes progress without blocking; true when done.
    virtual bool Test() = 0;
  };

  Event() = default;
  explicit Event(std::shared_ptr<Operation> operation)
      : operation_(std::move(operation)) {}
  void Wait() {
    if (operation_) operation_->Wait();
    operation_.reset();
  }
  bool Test() { return !operation_ || operation_->Test(); }

 private:
  std::shared_ptr<Operation> operation_;
};

// Bytes and calls since the start, as sent by this rank (ring algorithms'
// volume: all-reduce 2(n−1)/n, gather and scatter (n−1)/n of the full size).
struct CommunicationStatistics {
  int64_t calls = 0;
  int64_t sent_bytes = 0;
  // Time that Wait() spent blocked.
  double exposed_seconds = 0;
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  // This process's rank in the group, and the group's size.
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Group and purpose, e.g. "tp[0-1] activations".
  virtual std::string_view name() const = 0;

  // In place. Sums are formed in rank order, those of bf16 in fp32 with one
  // rounding at the end: the result is the same on every rank and in every
  // run, bit for bit.
  virtual Event AllReduce(const Tensor& data, ReduceOp op,
                          std::string_view name) = 0;
  // input[size·n, ..] → output[n, ..]: rank i gets the sum of slice i.
  virtual Event ReduceScatter(const Tensor& input, const Tensor& output,
                              std::string_view name) = 0;
  // input[n, ..] → output[size·n, ..], rank i's input at slice i.
  virtual Event AllGather(const Tensor& input, const Tensor& output,
                          std::string_view name) = 0;
  // Slice j of input goes to rank j; slice i of output comes from rank i.
  virtual Event AllToAll(const Tensor& input, const Tensor& output,
                         std::string_view name) = 0;
  // As AllToAll with given counts of leading-dim rows.
  virtual Event AllToAllV(const Tensor& input,
                          std::span<const int64_t> send_rows,
                          const Tensor& output,
                          std::span<const int64_t> receive_rows,
                          std::string_view name) = 0;
  virtual Event Broadcast(const Tensor& data, int root,
                          std::string_view name) = 0;
  // Messages between two ranks match by tag and, among equal tags, by order.
  virtual Event Send(const Tensor& data, int to, int tag,
                     std::string_view name) = 0;
  virtual Event Receive(const Tensor& data, int from, int tag,
                        std::string_view name) = 0;
  virtual void Barrier(std::string_view name) = 0;

  virtual CommunicationStatistics Statistics() const = 0;

  // For the table of a hang: what this process does from now on, beside
  // communication ("Forward mb=3 chunk=0"). The last call on any communicator
  // of the process counts.
  virtual void SetActivity(std::string_view /*activity*/) {}
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
