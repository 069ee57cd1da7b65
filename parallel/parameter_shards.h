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

#ifndef TRIREME_PARALLEL_PARAMETER_SHARDS_H_
#define TRIREME_PARALLEL_PARAMETER_SHARDS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "parallel/context.h"
#include "parallel/parameter_buckets.h"
#include "parallel/parameter_residency.h"
#include "runtime/comm/communicator.h"

namespace trireme {

class ParameterShards final : public ParameterResidency {
 public:
  // Moves the parameters' values into flat buckets, or makes the initial values
  // of this rank's shard where they have none (ParameterStore without
  // allocation). `seed`: of the initial values. Both outlive the result.
  ParameterShards(ParallelContext& context, const ParameterBuckets& buckets,
                  uint64_t seed);

  // The values that this rank owns of the bucket's parameter i: flat where it
  // owns a range, in the parameter's shape where it owns all.
  Tensor OwnedValue(int bucket, int i) const;

  // After the update of what this rank owns of the bucket.
  void StartGather(int bucket);

  // A forward or backward of the chunk begins. While its last unit is in use,
  // the first unit of the pass that comes after it is fetched: one of `next`
  // (null: none comes), which may be this.
  void BeginPass(PassDirection direction, ParameterShards* next,
                 PassDirection next_direction);
  void Acquire(int unit, PassDirection direction) override;
  void Release(int unit) override;
  void ReleaseAll() override;

 private:
  struct State {
    Tensor flat;   // the whole bucket, while it is there
    Tensor shard;  // with Level::kParameters
    Event gather;
    bool gathered = true;  // or on its way
  };

  bool transient() const {
    return buckets_.sharding().level == DataSharding::Level::kParameters;
  }
  void PointValues(int bucket);
  void Fetch(int unit);
  // The unit that a pass in this direction begins with stays until then.
  void FetchFirst(PassDirection direction);
  void Drop(int unit);

  ParallelContext& context_;
  const ParameterBuckets& buckets_;
  std::vector<State> states_;
  // The buckets of each unit.
  std::map<int, std::set<int>> units_;
  // The pass in progress, and the one after it.
  PassDirection direction_ = PassDirection::kForward;
  ParameterShards* next_ = nullptr;
  PassDirection next_direction_ = PassDirection::kForward;
  // Fetched for the pass to come.
  std::optional<int> ahead_;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_PARAMETER_SHARDS_H_
