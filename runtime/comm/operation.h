// An operation of a communicator as a value: what its implementations carry
// out, and what tests watch and disturb.

#ifndef TRIREME_RUNTIME_COMM_OPERATION_H_
#define TRIREME_RUNTIME_COMM_OPERATION_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "runtime/device/tensor.h"

namespace trireme {

enum class ReduceOp { kSum, kMax };

enum class ReduceOrder {
  // Of ranks, 16-bit types in fp32 with one rounding: the same bits on every
  // device and with every library.
  kRanks,
  // As the library that moves the data likes best, which may round 16-bit sums
  // at each step. Where none has sums of its own, kRanks.
  kFast,
};

struct Operation {
  enum class Kind {
    kAllReduce,
    kReduceScatter,
    kAllGather,
    kAllToAll,
    kAllToAllV,
    kBroadcast,
    kBarrier,
    kSend,
    kReceive,
  };

  Kind kind = Kind::kBarrier;
  // "dp gradient bucket 3". Valid until Start returns, as are the row counts.
  std::string_view name;
  // What is read, and what is written; one tensor for both where an operation
  // works in place (all-reduce, broadcast). Of messages only the one, of a
  // barrier neither is defined.
  Tensor input;
  Tensor output;
  ReduceOp reduce = ReduceOp::kSum;  // AllReduce
  // AllReduce, ReduceScatter.
  ReduceOrder order = ReduceOrder::kRanks;
  int root = 0;  // Broadcast
  int peer = 0;  // Send, Receive
  int tag = 0;   // Send, Receive
  // AllToAllV: leading-dim rows to and from each rank.
  std::span<const int64_t> send_rows = {};
  std::span<const int64_t> receive_rows = {};

  bool message() const { return kind == Kind::kSend || kind == Kind::kReceive; }
  bool in_place() const {
    return kind == Kind::kAllReduce || kind == Kind::kBroadcast;
  }
  // The tensor whose device and type are the operation's; not a barrier's.
  const Tensor& data() const { return input.defined() ? input : output; }
  // Nothing moves.
  bool dry() const { return kind != Kind::kBarrier && data().device().dry(); }
};

// "all-reduce 'dp gradient bucket 3'".
std::string OperationText(const Operation& operation);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_OPERATION_H_
