#include "parallel/sharding/parameter_shards.h"

#include "fmt/format.h"

namespace trireme {
namespace {

// Of a parameter that is whole on this rank, in a store without allocation.
void MakeValue(Device& device, uint64_t seed, Parameter& parameter) {
  parameter.value = Tensor::Empty(
      device, LocalShape(parameter.global_shape, parameter.shards),
      parameter.dtype, MemoryCategory::kParameters, parameter.name);
  InitializeParameter(seed, parameter);
}

}  // namespace

ParameterShards::ParameterShards(ParallelContext& context,
                                 const ParameterBuckets& buckets, uint64_t seed)
    : context_(context), buckets_(buckets), states_(buckets.size()) {
  for (int b = 0; b < buckets_.size(); ++b) {
    const ParameterBucket& bucket = buckets_[b];
    State& state = states_[b];
    if (bucket.device != &context.device()) continue;
    for (const Parameter* parameter : bucket.parameters) {
      units_[parameter->unit].insert(b);
    }
    if (bucket.sharding.level == DataSharding::Level::kReplicated) {
      for (Parameter* parameter : bucket.parameters) {
        if (!parameter->value.defined())
          MakeValue(context.device(), seed, *parameter);
      }
      continue;
    }
    const DType dtype = bucket.parameters[0]->dtype;
    const auto buffer = [&](int64_t elements) {
      return Tensor::Zeros(context.device(), {elements}, dtype,
                           MemoryCategory::kParameters,
                           fmt::format("parameter bucket {}", b));
    };
    (transient(b) ? state.shard : state.flat) =
        buffer(transient(b) ? bucket.shard_elements() : bucket.elements);
    for (size_t i = 0; i < bucket.parameters.size(); ++i) {
      Parameter& parameter = *bucket.parameters[i];
      if (!transient(b)) {
        const Tensor slice = bucket.Slice(state.flat, static_cast<int>(i));
        if (!parameter.value.defined()) {
          MakeValue(context.device(), seed, parameter);
        }
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
    state.gathered = !transient(b);
  }
}

Tensor ParameterShards::OwnedValue(int bucket, int i) const {
  const ParameterBucket& layout = buckets_[bucket];
  const State& state = states_[bucket];
  const Parameter& parameter = *layout.parameters[i];
  if (transient(bucket)) return layout.OwnedInShard(state.shard, i);
  const ElementRange owned = layout.Owned(i);
  if (owned.size() == parameter.local_elements()) return parameter.value;
  return parameter.value.Reshape({-1}).Slice(owned.begin, owned.end);
}

void ParameterShards::Publish(int bucket) {
  // Sharded parameters are gathered when they are used.
  if (transient(bucket)) return;
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
  for (const int b : units_[unit]) {
    State& state = states_[b];
    if (!transient(b) || state.gathered) continue;
    state.gathered = true;
    const std::string name = fmt::format("parameters of unit {}", unit);
    state.flat = Tensor::Empty(context_.device(), {buckets_[b].elements},
                               buckets_[b].parameters[0]->dtype,
                               MemoryCategory::kParameters, name);
    state.gather = context_.communicators().ShardParameters().AllGather(
        state.shard, state.flat, name);
  }
}

void ParameterShards::Bring(int unit) {
  Fetch(unit);
  for (const int b : units_[unit]) {
    states_[b].gather.Wait();
    if (transient(b)) PointValues(b);
  }
}

void ParameterShards::Drop(int unit) {
  for (const int b : units_[unit]) {
    State& state = states_[b];
    if (!transient(b) || !state.gathered) continue;
    state.gather.Wait();
    state.flat = Tensor();
    state.gathered = false;
    PointValues(b);
  }
}

}  // namespace trireme
