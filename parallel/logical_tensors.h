// Logical tensors from the parts that ranks hold: for checkpoints and for
// comparing one grid with another.
//
// Parts are found by name. Of ranks that hold the same part (replicas over dp,
// parameters that tp does not shard) the one at coordinate 0 sends it. World
// rank 0 assembles one logical tensor at a time, so that no more than one is
// ever whole in memory.

#ifndef TRIREME_PARALLEL_LOGICAL_TENSORS_H_
#define TRIREME_PARALLEL_LOGICAL_TENSORS_H_

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/context.h"

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

struct LogicalTensorInfo {
  std::string name;
  Shape shape;
  DType dtype = DType::kFloat32;
};

class LogicalGather {
 public:
  // Collective over the world. Errors (the same on all ranks): parts of one
  // name that do not fit together.
  static absl::StatusOr<LogicalGather> Create(ParallelContext& context,
                                              std::vector<TensorPart> parts);

  // What Run will visit, by name; empty but on world rank 0.
  const std::vector<LogicalTensorInfo>& tensors() const { return tensors_; }

  // Makes Run visit in this order of names (all of them). Rank 0 only.
  void Reorder(const std::vector<std::string>& names);

  // Collective over the world. Calls `visit` on world rank 0 for each tensor
  // in the order of tensors().
  void Run(const std::function<void(const LogicalTensorInfo&,
                                    const Tensor& whole)>& visit);

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

  ParallelContext* context_;
  std::vector<TensorPart> parts_;  // those that this rank sends
  std::vector<LogicalTensorInfo> tensors_;
  std::map<std::string, std::vector<RemotePart>> sources_;
};

// Copies this rank's part out of a whole tensor of the same dtype.
void CopyPart(const Tensor& whole, const TensorPart& part);

}  // namespace trireme

#endif  // TRIREME_PARALLEL_LOGICAL_TENSORS_H_
