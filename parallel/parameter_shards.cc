#include "parallel/parameter_shards.h"

#include <iterator>

#include "fmt/format.h"

namespace trireme {

ParameterShards::ParameterShards(ParallelContext& context,
                                 const ParameterBuckets& buckets, uint64_t seed)
    : context_(context), buckets_(buckets), states_(buckets.size()) {
  const bool replicated =
      buckets.sharding().level == DataSharding::Level::kReplicated;
  for (int b = 0; b < buckets_.size(); ++b) {
    const ParameterBucket& bucket = buckets_[b];
    State& state = states_[b];
    for (const Parameter* parameter : bucket.parameters) {
      units_[parameter->unit].insert(b);
    }
    if (replicated) continue;
    const DType dtype = bucket.parameters[0]->dtype;
    const auto buffer = [&](int64_t elements) {
      return Tensor::Zeros(context.device(), {elements}, dtype,
                           MemoryCategory::kParameters,
                           fmt::format("parameter bucket {}", b));
    };
    (transient() ? state.shard : state.flat) =
        buffer(transient() ? bucket.shard_elements() : bucket.elements);
    for (size_t i = 0; i < bucket.parameters.size(); ++i) {
      Parameter& parameter = *bucket.parameters[i];
      if (!transient()) {
        const Tensor slice = bucket.Slice(state.flat, static_cast<int>(i));
        slice.CopyFrom(parameter.value);
        parameter.value = slice;
        continue;
      }
      const ElementRange owned = bucket.Owned(static_cast<int>(i));
      if (owned.size() == 0) continue;
      Parameter whole = parameter;
      whole.value =
          Tensor::Empty(context.device(),
                        LocalShape(parameter.global_shape, parameter.shards),
                        dtype, MemoryCategory::kWorkspace, "initial values");
      InitializeParameter(seed, whole);
      bucket.OwnedInShard(state.shard, static_cast<int>(i))
          .CopyFrom(whole.value.Reshape({-1}).Slice(owned.begin, owned.end));
    }
    state.gathered = !transient();
  }
}

Tensor ParameterShards::OwnedValue(int bucket, int i) const {
  const ParameterBucket& layout = buckets_[bucket];
  const State& state = states_[bucket];
  const Parameter& parameter = *layout.parameters[i];
  if (transient()) return layout.OwnedInShard(state.shard, i);
  const ElementRange owned = layout.Owned(i);
  if (owned.size() == parameter.local_elements()) return parameter.value;
  return parameter.value.Reshape({-1}).Slice(owned.begin, owned.end);
}

void ParameterShards::StartGather(int bucket) {
  // Sharded parameters are gathered when they are used.
  if (transient()) return;
  State& state = states_[bucket];
  Communicator& group = context_.communicators().ShardParameters();
  if (!state.flat.defined() || group.size() == 1) return;
  state.gather.Wait();
  state.gather = group.AllGather(buckets_[bucket].Shard(state.flat), state.flat,
                                 fmt::format("parameter bucket {}", bucket));
}

void ParameterShards::PointValues(int bucket) {
  const Tensor& flat = states_[bucket].flat;
  for (size_t i = 0; i < buckets_[bucket].parameters.size(); ++i) {
    buckets_[bucket].parameters[i]->value =
        flat.defined() ? buckets_[bucket].Slice(flat, static_cast<int>(i))
                       : Tensor();
  }
}

void ParameterShards::Fetch(int unit) {
  for (const int b : units_.at(unit)) {
    State& state = states_[b];
    if (state.gathered) continue;
    state.gathered = true;
    const std::string name = fmt::format("parameters of unit {}", unit);
    state.flat = Tensor::Empty(context_.device(), {buckets_[b].elements},
                               buckets_[b].parameters[0]->dtype,
                               MemoryCategory::kParameters, name);
    state.gather = context_.communicators().ShardParameters().AllGather(
        state.shard, state.flat, name);
  }
}

void ParameterShards::FetchFirst(PassDirection direction) {
  if (!transient() || units_.empty()) return;
  ahead_ = direction == PassDirection::kForward ? units_.begin()->first
                                                : units_.rbegin()->first;
  Fetch(*ahead_);
}

void ParameterShards::BeginPass(PassDirection direction, ParameterShards* next,
                                PassDirection next_direction) {
  direction_ = direction;
  next_ = next;
  next_direction_ = next_direction;
  ahead_.reset();
}

void ParameterShards::Acquire(int unit, PassDirection direction) {
  const auto at = units_.find(unit);
  if (at == units_.end()) return;
  if (transient()) Fetch(unit);
  for (const int b : at->second) {
    states_[b].gather.Wait();
    if (transient()) PointValues(b);
  }
  if (!transient()) return;
  const bool forward = direction == PassDirection::kForward;
  const auto last = forward ? std::prev(units_.end()) : units_.begin();
  if (at != last) {
    Fetch((forward ? std::next(at) : std::prev(at))->first);
  } else if (direction == direction_ && next_ != nullptr) {
    // Not where a backward runs its last unit's forward again.
    next_->FetchFirst(next_direction_);
  }
}

void ParameterShards::Drop(int unit) {
  for (const int b : units_.at(unit)) {
    State& state = states_[b];
    if (!state.gathered) continue;
    state.gather.Wait();
    state.flat = Tensor();
    state.gathered = false;
    PointValues(b);
  }
}

void ParameterShards::Release(int unit) {
  if (transient() && units_.contains(unit) && ahead_ != unit) Drop(unit);
}

void ParameterShards::ReleaseAll() {
  if (!transient()) return;
  for (const auto& [unit, unused] : units_) {
    if (ahead_ != unit) Drop(unit);
  }
}

}  // namespace trireme
