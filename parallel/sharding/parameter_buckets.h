// The parameters of one chunk that train, in flat buckets: what one collective
// moves.
//
// Buckets fill in the order in which backward finishes parameters (the reverse
// of creation), up to a byte limit; parameters that are summed over different
// axes go into different buckets, as do those of different types, experts that
// ep divides, and those of different units where parameters are sharded or
// units have a home. A bucket's
// flat buffer is cut into as many equal shards as ranks share it: rank i owns
// shard i, and with it a range of each parameter's elements, which begins at a
// multiple of kShardGranule.

#ifndef TRIREME_PARALLEL_SHARDING_PARAMETER_BUCKETS_H_
#define TRIREME_PARALLEL_SHARDING_PARAMETER_BUCKETS_H_

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "parallel/grid/context.h"
#include "parallel/sharding/data_sharding.h"
#include "runtime/autograd/parameter.h"

namespace trireme {

// Parameters and shards start at multiples of this many elements of a flat
// buffer: aligned for vectors in every dtype; and of the parameters, a rank
// owns whole blocks of so many elements, whatever the buckets.
inline constexpr int64_t kShardGranule = 64;

// Elements [begin, end) of this rank's part of a parameter, in row-major order.
struct ElementRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
};

// Units [begin, end) of a chunk that are on the device only while it computes
// with them; else they are at home.
struct UnitHome {
  Device* device = nullptr;  // null: no unit is
  int begin = 0;
  int end = 0;
  // False: what trains stays on the device, with its optimizer.
  bool trained = true;

  bool Has(int unit) const {
    return device != nullptr && unit >= begin && unit < end;
  }
};

struct ParameterBucket {
  std::vector<Parameter*> parameters;
  std::vector<int64_t> offsets;  // of each in the flat buffer
  AxisSet axes;                  // over which its gradients are summed
  // Its parameters are sharded over ep: of the ranks along `axes`, those that
  // hold the same experts share it, each of them whole.
  bool experts = false;
  DataSharding sharding;
  int64_t elements = 0;  // of the flat buffer, padding included
  int shards = 1;
  int shard = 0;  // this rank's
  // Where its gradients are summed and its optimizer runs.
  Device* device = nullptr;

  int64_t shard_elements() const { return elements / shards; }
  // What this rank owns of parameters[i]; empty where its shard holds nothing
  // of it.
  ElementRange Owned(int i) const;
  // Whether its shard is more than what fills the bucket up.
  bool OwnsAny() const;
  // Slices of a flat buffer: parameters[i], in its shape; this rank's shard.
  Tensor Slice(const Tensor& flat, int i) const;
  Tensor Shard(const Tensor& flat) const;
  // The owned range of parameters[i] in a buffer of this rank's shard alone.
  Tensor OwnedInShard(const Tensor& shard_buffer, int i) const;
};

class ParameterBuckets {
 public:
  // The parameters' gradient_sum_axes must be known. Where any unit has a home,
  // buckets hold parameters of one unit each.
  ParameterBuckets(ParallelContext& context,
                   const std::vector<std::unique_ptr<Parameter>>& parameters,
                   int64_t bucket_bytes, const DataSharding& sharding,
                   const UnitHome& home = {});

  int size() const { return static_cast<int>(buckets_.size()); }
  const ParameterBucket& operator[](int i) const { return buckets_[i]; }
  int BucketOf(const Parameter& parameter) const {
    return bucket_of_.at(&parameter);
  }

 private:
  std::vector<ParameterBucket> buckets_;
  std::unordered_map<const Parameter*, int> bucket_of_;
};

// The ranks over which the bucket's gradients are summed.
Communicator& SumGroup(Communicators& communicators,
                       const ParameterBucket& bucket);

}  // namespace trireme

#endif  // TRIREME_PARALLEL_SHARDING_PARAMETER_BUCKETS_H_
