// Gradient accumulators of one chunk's parameters, and their data-parallel
// reduction in buckets behind the backward pass (Li et al., "PyTorch
// distributed", section 3.2.3; Megatron's DDP buckets).
//
// What a rank holds between the steps' backwards depends on the sharding:
//
//   replicated, optimizer  the whole bucket; reduced once a step, when its last
//                          parameter has its last contribution
//   gradients, parameters  this rank's shard; the whole bucket lives only from
//                          the first contribution of a backward to the last,
//                          is then reduce-scattered and added to the shard
//
// All ranks of a group finish buckets in the same order, since they run the
// same instructions; so they start the same collectives in the same order.
// Gradients that are summed over more than the ranks of the shards (tp, cp,
// hybrid replicas) are then all-reduced over the rest, shard by shard: as soon
// as the shard's sum is there and nothing more will be added to it.
//
// Where a bucket's gradients are kept elsewhere than backward adds to them (at
// home, units that are offloaded), whoever takes them there has them summed
// over the ranks before (SumOverRanks): each time where only shards stay, else
// with the last contribution.
//
// The result is a sum: the loss is already divided by the global count.

#ifndef TRIREME_PARALLEL_SHARDING_GRADIENT_REDUCER_H_
#define TRIREME_PARALLEL_SHARDING_GRADIENT_REDUCER_H_

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "parallel/grid/context.h"
#include "parallel/sharding/parameter_buckets.h"
#include "runtime/comm/pending_tensor.h"

namespace trireme {

class GradientReducer {
 public:
  // When the reduction of a bucket starts.
  enum class Timing {
    // With its last contribution, behind the rest of the backward. That need
    // not be the buckets' order, but is one order for ranks that run the same
    // backward.
    kWhenComplete,
    // In Start(): where some ranks of the group have no contributions, and so
    // no backward. Not where gradients are sharded.
    kInOrder,
  };

  // Each step brings `contributions` (one per microbatch) to every parameter.
  // Both outlive the reducer.
  GradientReducer(ParallelContext& context, const ParameterBuckets& buckets,
                  int contributions, Timing timing = Timing::kWhenComplete);

  int num_buckets() const { return buckets_.size(); }
  const std::vector<Parameter*>& bucket_parameters(int bucket) const {
    return buckets_[bucket].parameters;
  }

  // Zeroes the accumulators and forgets the last step: of all buckets, or of
  // one, whose gradients have been kept until now for an update. Those on
  // another device than the parameters' are overwritten by what first comes to
  // them.
  void BeginStep();
  void BeginStep(int bucket);
  // Makes Parameter::grad ready to be added to.
  void Prepare(Parameter& parameter);
  // One contribution to a parameter is complete; may start its bucket.
  void Contribute(Parameter& parameter);
  // CHECKs that the bucket is complete; starts what is left of its reduction.
  void Start(int bucket);
  // Blocks until the bucket is reduced.
  void Wait(int bucket);
  // Multiplies the reduced gradients of what this rank owns of the bucket.
  void Scale(int bucket, double factor);

  // Whether no contribution to the bucket has come in the step.
  bool Untouched(int bucket) const;

  // What is kept of the bucket from one contribution to the next: all of it, or
  // this rank's shard.
  const Tensor& Accumulators(int bucket) const {
    return keeps_shard(bucket) ? states_[bucket].shard : states_[bucket].flat;
  }
  bool keeps_shard(int bucket) const {
    return buckets_[bucket].sharding.level >= DataSharding::Level::kGradients;
  }

  // Of a bucket that backward has added to elsewhere, in `whole`: sums over
  // ranks what is to be summed by now, in the order of the current stream of
  // its device. `shard`, of a bucket of which only shards are kept, holds what
  // was kept so far, to which the sum is added.
  struct Summed {
    Tensor sums;  // whole, shard, or a slice of whole
    Tensor kept;  // the accumulators that they replace
  };
  Summed SumOverRanks(int bucket, const Tensor& whole, const Tensor& shard);

  // The reduced gradient of what this rank owns of the bucket's parameter i.
  Tensor OwnedGradient(int bucket, int i) const;

 private:
  struct State {
    Tensor flat;   // the whole bucket, while it is there
    Tensor shard;  // this rank's, where that is all that stays
    // Contributions to come in the step, and whether one came since the whole
    // bucket was last reduced.
    std::vector<int> missing;
    std::vector<bool> contributed;
    bool finished = false;
    // What follows the sum over the ranks of the shards.
    bool rest_started = false;
    Event reduction;
  };
  // A bucket on its way into the shards.
  struct Travel {
    int bucket = 0;
    Tensor flat;
    PendingTensor sum;
  };

  // Of a whole bucket that is complete.
  void StartSum(int bucket);
  void StartAllReduce(int bucket, const Tensor& flat);
  // Whether backward adds to the accumulators themselves.
  bool in_place(int bucket) const {
    return buckets_[bucket].device == &context_.device();
  }
  Tensor NewFlat(int bucket) const;
  void PointGradients(int bucket);
  // Starts the sum of flat's shards over the ranks of the shards.
  PendingTensor StartShardSum(int bucket, const Tensor& flat);
  void StartTravel(int bucket);
  void FinishTravel();
  // What StartShardSum has made of `whole`: into this rank's shard, which may
  // be a part of it.
  void TakeShardSum(int bucket, const Tensor& sum, const Tensor& whole,
                    const Tensor& shard);
  bool Complete(int bucket) const;
  // Once the shard is complete: its sum over replicas, or its way back to all.
  void StartRest(int bucket, const Tensor& whole, const Tensor& shard);
  Communicator& ShardGroup(int bucket) const;

  ParallelContext& context_;
  const ParameterBuckets& buckets_;
  int contributions_;
  Timing timing_;
  std::vector<State> states_;
  // Where a parameter is in its bucket.
  std::unordered_map<const Parameter*, int> position_;
  // At most one, so that memory is bounded and the same in a dry run.
  std::optional<Travel> travel_;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_SHARDING_GRADIENT_REDUCER_H_
