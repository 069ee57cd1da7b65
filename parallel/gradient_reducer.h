// Gradient accumulators of one chunk's parameters, and their data-parallel
// reduction in buckets behind the backward pass (Li et al., "PyTorch
// distributed", section 3.2.3; Megatron's DDP buckets).
//
// Accumulators are slices of flat buffers, one per bucket, so that a bucket is
// reduced in one collective without copies. Buckets fill in the order in which
// backward finishes parameters (the reverse of creation), up to a byte limit;
// parameters that are summed over different axes go into different buckets. A
// bucket starts when its last parameter has its last contribution of the step;
// buckets start in index order, so that all ranks of a group start the same
// collectives in the same order.
//
// The result is a sum: the loss is already divided by the global count.

#ifndef TRIREME_PARALLEL_GRADIENT_REDUCER_H_
#define TRIREME_PARALLEL_GRADIENT_REDUCER_H_

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "parallel/context.h"
#include "runtime/autograd/parameter.h"

namespace trireme {

class GradientReducer {
 public:
  // Allocates the accumulators (kGradients) and sets Parameter::grad; their
  // gradient_sum_axes must be known. Each step brings `contributions` (one per
  // microbatch) to every parameter.
  GradientReducer(ParallelContext& context,
                  const std::vector<std::unique_ptr<Parameter>>& parameters,
                  int64_t bucket_bytes, int contributions);

  int num_buckets() const { return static_cast<int>(buckets_.size()); }
  const std::vector<Parameter*>& bucket_parameters(int bucket) const {
    return buckets_[bucket].parameters;
  }

  // Zeroes the accumulators and forgets the last step.
  void BeginStep();
  // One contribution to a parameter is complete; may start buckets.
  void Contribute(Parameter& parameter);
  // CHECKs that the bucket is complete and starts it if need be.
  void Start(int bucket);
  // Blocks until the bucket is reduced.
  void Wait(int bucket);

 private:
  struct Bucket {
    std::vector<Parameter*> parameters;
    AxisSet axes;
    Tensor flat;
    int incomplete = 0;  // parameters that still wait for contributions
    bool started = false;
    Event reduction;
  };

  void StartCompleteBuckets();
  void StartReduction(Bucket& bucket, int index);

  ParallelContext& context_;
  int contributions_;
  std::vector<Bucket> buckets_;
  std::unordered_map<const Parameter*, int> bucket_of_;
  std::unordered_map<const Parameter*, int> missing_;
  int next_to_start_ = 0;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_GRADIENT_REDUCER_H_
