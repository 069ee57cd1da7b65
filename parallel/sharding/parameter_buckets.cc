#include "parallel/sharding/parameter_buckets.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "parallel/grid/shard_copies.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

int64_t RoundUp(int64_t elements, int64_t multiple) {
  return (elements + multiple - 1) / multiple * multiple;
}

}  // namespace

ElementRange ParameterBucket::Owned(int i) const {
  const int64_t size = parameters[i]->local_elements();
  const int64_t begin = shard * shard_elements() - offsets[i];
  ElementRange range;
  range.begin = std::clamp<int64_t>(begin, 0, size);
  range.end = std::clamp<int64_t>(begin + shard_elements(), 0, size);
  return range;
}

bool ParameterBucket::OwnsAny() const {
  for (int i = 0; i < static_cast<int>(parameters.size()); ++i) {
    if (Owned(i).size() > 0) return true;
  }
  return false;
}

Tensor ParameterBucket::Slice(const Tensor& flat, int i) const {
  const Parameter& parameter = *parameters[i];
  return flat.Slice(offsets[i], offsets[i] + parameter.local_elements())
      .Reshape(LocalShape(parameter.global_shape, parameter.shards));
}

Tensor ParameterBucket::Shard(const Tensor& flat) const {
  return flat.Slice(shard * shard_elements(), (shard + 1) * shard_elements());
}

Tensor ParameterBucket::OwnedInShard(const Tensor& shard_buffer, int i) const {
  const ElementRange owned = Owned(i);
  const int64_t first = offsets[i] + owned.begin - shard * shard_elements();
  return shard_buffer.Slice(first, first + owned.size());
}

ParameterBuckets::ParameterBuckets(
    ParallelContext& context,
    const std::vector<std::unique_ptr<Parameter>>& parameters,
    int64_t bucket_bytes, const DataSharding& sharding, const UnitHome& home) {
  const bool by_unit = sharding.level == DataSharding::Level::kParameters ||
                       home.device != nullptr;
  // The bucket being filled, for each set of axes and type (and unit), experts
  // and what is at home apart.
  std::map<std::tuple<AxisSet, bool, bool, DType, int>, int> open;
  for (auto it = parameters.rbegin(); it != parameters.rend(); ++it) {
    Parameter& parameter = **it;
    if (!parameter.trainable) continue;
    const int64_t elements = RoundUp(parameter.local_elements(), kShardGranule);
    const int64_t element_bytes = DTypeSize(ComputeDType(parameter.dtype));
    const bool experts = ShardedOver(parameter.shards, Axis::kExpert);
    // Homes have values of one type, to which counts are not to be rounded.
    const bool at_home = home.Has(parameter.unit) && home.trained &&
                         !parameter.replaced_by_gradient;
    const std::tuple key(parameter.gradient_sum_axes, experts, at_home,
                         parameter.dtype, by_unit ? parameter.unit : 0);
    const auto found = open.find(key);
    const bool fits =
        found != open.end() &&
        (buckets_[found->second].elements + elements) * element_bytes <=
            std::max(bucket_bytes, elements * element_bytes);
    if (!fits) {
      open[key] = size();
      ParameterBucket bucket;
      bucket.axes = parameter.gradient_sum_axes;
      bucket.experts = experts;
      bucket.sharding = sharding;
      // ep divides them instead.
      if (experts) {
        bucket.sharding.level = DataSharding::Level::kReplicated;
        bucket.sharding.group = 1;
      }
      bucket.device = at_home ? home.device : &context.device();
      buckets_.push_back(std::move(bucket));
    }
    const int at = open[key];
    ParameterBucket& bucket = buckets_[at];
    bucket.parameters.push_back(&parameter);
    bucket.offsets.push_back(bucket.elements);
    bucket.elements += elements;
    bucket_of_[&parameter] = at;
  }
  for (ParameterBucket& bucket : buckets_) {
    bucket.shards = bucket.sharding.ShardsAt(DataSharding::Level::kOptimizer);
    bucket.shard = context.grid().coordinate(Axis::kData) % bucket.shards;
    // bf16 messages cut replicated buckets too, over all ranks of the sum.
    const int cuts = sharding.bf16_messages && bucket.shards == 1
                         ? SumGroup(context.communicators(), bucket).size()
                         : bucket.shards;
    bucket.elements = RoundUp(bucket.elements, kShardGranule * cuts);
  }
}

Communicator& SumGroup(Communicators& communicators,
                       const ParameterBucket& bucket) {
  return bucket.experts ? communicators.ExpertGradients()
                        : communicators.ForGradients(bucket.axes);
}

}  // namespace trireme
