// The values of parameters that data-parallel ranks share: what each rank owns
// and updates, and the all-gathers that make them whole.
//
//   replicated            every rank owns everything
//   optimizer, gradients  values are whole everywhere; after the update of a
//                         bucket each rank's shard is gathered by all, behind
//                         the next forward, which waits where it first uses
//                         the bucket
//   parameters            only the shard stays; a unit is gathered before it
//                         is used and dropped after, and while it is used the
//                         next one is on its way, be it of the next pass

#ifndef TRIREME_PARALLEL_SHARDING_PARAMETER_SHARDS_H_
#define TRIREME_PARALLEL_SHARDING_PARAMETER_SHARDS_H_

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "parallel/grid/context.h"
#include "parallel/sharding/parameter_buckets.h"
#include "parallel/sharding/unit_store.h"
#include "runtime/comm/communicator.h"

namespace trireme {

class ParameterShards final : public UnitStore {
 public:
  // Moves the parameters' values into flat buckets, or makes the initial values
  // of this rank's shard where they have none (ParameterStore without
  // allocation). Buckets that have their home elsewhere are left alone. `seed`:
  // of the initial values. Both outlive the result.
  ParameterShards(ParallelContext& context, const ParameterBuckets& buckets,
                  uint64_t seed);

  // The values that this rank owns of the bucket's parameter i: flat where it
  // owns a range, in the parameter's shape where it owns all.
  Tensor OwnedValue(int bucket, int i) const;

  // Values that stay are brought by waiting for their last gather.
  void Fetch(int unit) override;
  void Bring(int unit) override;
  void Drop(int unit) override;
  // Gathers the bucket's shards, where values stay.
  void Publish(int bucket) override;

 private:
  struct State {
    Tensor flat;   // the whole bucket, while it is there
    Tensor shard;  // with Level::kParameters
    Event gather;
    bool gathered = true;  // or on its way
  };

  bool transient(int bucket) const {
    return buckets_[bucket].sharding.level == DataSharding::Level::kParameters;
  }
  void PointValues(int bucket);

  ParallelContext& context_;
  const ParameterBuckets& buckets_;
  std::vector<State> states_;
  // The buckets of each unit.
  std::map<int, std::set<int>> units_;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_SHARDING_PARAMETER_SHARDS_H_
