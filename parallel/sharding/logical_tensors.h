// Logical tensors from the parts that ranks hold, for comparing one grid with
// another. How they are stored: stored_tensors.h.
//
// Parts are found by name. Of ranks that hold the same part (replicas over dp,
// parameters that tp does not shard) the one at coordinate 0 sends it. World
// rank 0 assembles tensors in pieces of a few MiB of its host's memory.

#ifndef TRIREME_PARALLEL_SHARDING_LOGICAL_TENSORS_H_
#define TRIREME_PARALLEL_SHARDING_LOGICAL_TENSORS_H_

#include <cstddef>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/grid/context.h"
#include "runtime/checkpoint/safetensors.h"

namespace trireme {

// This rank's part of a logical tensor: its shard, or a range of the shard's
// elements where data-parallel ranks share it.
struct TensorPart {
  std::string name;
  Shape global_shape;
  std::vector<ShardedDim> shards;
  Tensor local;  // the shard, or the range, flat
  // In the shard.
  int64_t begin = 0;
  int64_t end = 0;
  // Data-parallel ranks of coordinates below this hold all ranges.
  int data_shards = 1;
};

class LogicalGather {
 public:
  // Collective over the world. Errors (the same on all ranks): parts of one
  // name that do not fit together or leave some of the tensor out.
  static absl::StatusOr<LogicalGather> Create(ParallelContext& context,
                                              std::vector<TensorPart> parts);

  // What will be visited, in the order of a safetensors file; empty but on
  // world rank 0.
  const std::vector<SafetensorsEntry>& tensors() const { return tensors_; }

  // The elements of one tensor that follow those of the last call.
  using VisitPiece = std::function<void(const SafetensorsEntry&,
                                        std::span<const std::byte> piece)>;
  using VisitWhole =
      std::function<void(const SafetensorsEntry&, const Tensor& whole)>;

  // Collective over the world. Calls `visit` on world rank 0 for each piece of
  // each tensor, in the order of tensors(). It may take its time: the others
  // wait without a deadline.
  void RunInPieces(const VisitPiece& visit);
  // The same for whole tensors, one at a time in the host's memory.
  void Run(const VisitWhole& visit);

 private:
  struct RemotePart {
    int rank = 0;
    int index = 0;  // in that rank's list: its message tag
    std::vector<ShardedDim> shards;
    int64_t begin = 0;
    int64_t end = 0;
  };

  LogicalGather(ParallelContext& context, std::vector<TensorPart> parts)
      : context_(&context), parts_(std::move(parts)) {}
  absl::Status AddRemote(int rank, const std::string& description);
  // Whether the parts of each tensor are all of it.
  absl::Status CheckCovered() const;
  void SendParts();
  void AssembleParts(const VisitPiece& visit);

  ParallelContext* context_;
  // Those that this rank sends, in the order of tensors_.
  std::vector<TensorPart> parts_;
  std::vector<SafetensorsEntry> tensors_;
  std::map<std::string, std::vector<RemotePart>> sources_;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_SHARDING_LOGICAL_TENSORS_H_
