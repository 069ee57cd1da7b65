#include "parallel/sharding/gradient_reducer.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"
#include "runtime/core/log.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

// The sum of the rows of [n, elements], in row order, in the accumulators'
// dtype.
Tensor SumRows(const Tensor& rows, DType dtype) {
  Tensor sum;
  for (int64_t i = 0; i < rows.dim(0); ++i) {
    const Tensor row = Cast(rows.Slice(i, i + 1).Reshape({rows.dim(1)}), dtype);
    if (sum.defined()) {
      AddInPlace(row, sum);
    } else {
      sum = row;
    }
  }
  return sum;
}

}  // namespace

GradientReducer::GradientReducer(ParallelContext& context,
                                 const ParameterBuckets& buckets,
                                 int contributions, Timing timing)
    : context_(context),
      buckets_(buckets),
      contributions_(contributions),
      timing_(timing),
      states_(buckets.size()) {
  CHECK(timing == Timing::kInOrder || contributions > 0);
  for (int b = 0; b < buckets_.size(); ++b) {
    const ParameterBucket& bucket = buckets_[b];
    State& state = states_[b];
    CHECK(timing == Timing::kWhenComplete || !keeps_shard(b));
    for (size_t i = 0; i < bucket.parameters.size(); ++i) {
      position_[bucket.parameters[i]] = static_cast<int>(i);
    }
    if (keeps_shard(b)) {
      state.shard = Tensor::Zeros(*bucket.device, {bucket.shard_elements()},
                                  ComputeDType(bucket.parameters[0]->dtype),
                                  MemoryCategory::kGradients,
                                  fmt::format("gradient shard {}", b));
    } else {
      state.flat = NewFlat(b);
      if (in_place(b)) PointGradients(b);
    }
  }
  BeginStep();
}

Tensor GradientReducer::NewFlat(int bucket) const {
  return Tensor::Zeros(*buckets_[bucket].device, {buckets_[bucket].elements},
                       ComputeDType(buckets_[bucket].parameters[0]->dtype),
                       MemoryCategory::kGradients,
                       fmt::format("gradient bucket {}", bucket));
}

void GradientReducer::PointGradients(int bucket) {
  const Tensor& flat = states_[bucket].flat;
  for (size_t i = 0; i < buckets_[bucket].parameters.size(); ++i) {
    buckets_[bucket].parameters[i]->grad =
        flat.defined() ? buckets_[bucket].Slice(flat, static_cast<int>(i))
                       : Tensor();
  }
}

void GradientReducer::BeginStep() {
  for (int bucket = 0; bucket < num_buckets(); ++bucket) BeginStep(bucket);
}

void GradientReducer::BeginStep(int bucket) {
  State& state = states_[bucket];
  if (in_place(bucket)) {
    (keeps_shard(bucket) ? state.shard : state.flat).FillZero();
  }
  state.finished = false;
  state.rest_started = false;
  const size_t parameters = buckets_[bucket].parameters.size();
  state.missing.assign(parameters, contributions_);
  state.contributed.assign(parameters, false);
}

void GradientReducer::Prepare(Parameter& parameter) {
  const int bucket = buckets_.BucketOf(parameter);
  if (states_[bucket].flat.defined() || !in_place(bucket)) return;
  states_[bucket].flat = NewFlat(bucket);
  PointGradients(bucket);
}

void GradientReducer::Contribute(Parameter& parameter) {
  const int bucket = buckets_.BucketOf(parameter);
  State& state = states_[bucket];
  const int i = position_.at(&parameter);
  CHECK_GT(state.missing[i], 0)
      << parameter.name << ": one contribution too many";
  --state.missing[i];
  state.contributed[i] = true;
  if (!in_place(bucket)) return;
  const bool last = std::all_of(state.missing.begin(), state.missing.end(),
                                [](int missing) { return missing == 0; });
  if (keeps_shard(bucket)) {
    if (std::all_of(state.contributed.begin(), state.contributed.end(),
                    [](bool contributed) { return contributed; })) {
      StartTravel(bucket);
    }
  } else if (last && timing_ == Timing::kWhenComplete) {
    StartSum(bucket);
  }
}

void GradientReducer::StartSum(int bucket) {
  const DataSharding& sharding = buckets_[bucket].sharding;
  if (sharding.level != DataSharding::Level::kReplicated ||
      sharding.bf16_messages) {
    StartTravel(bucket);
    return;
  }
  StartAllReduce(bucket, states_[bucket].flat);
}

void GradientReducer::StartAllReduce(int bucket, const Tensor& flat) {
  Communicator& group = SumGroup(context_.communicators(), buckets_[bucket]);
  if (group.size() == 1) return;
  states_[bucket].reduction = group.AllReduce(
      flat, ReduceOp::kSum, fmt::format("gradient bucket {}", bucket));
}

Communicator& GradientReducer::ShardGroup(int bucket) const {
  return buckets_[bucket].sharding.level == DataSharding::Level::kReplicated
             ? SumGroup(context_.communicators(), buckets_[bucket])
             : context_.communicators().ShardGroup();
}

PendingTensor GradientReducer::StartShardSum(int bucket, const Tensor& flat) {
  Communicator& group = ShardGroup(bucket);
  const int64_t part = flat.num_elements() / group.size();
  const std::string name = fmt::format("gradient bucket {}", bucket);
  const Tensor rows = flat.Reshape({group.size(), part});
  if (buckets_[bucket].sharding.bf16_messages) {
    const Tensor sent = Cast(rows, DType::kBFloat16);
    const Tensor received =
        Tensor::Empty(flat.device(), rows.shape(), DType::kBFloat16,
                      MemoryCategory::kCommunication, name);
    return {group.AllToAll(sent, received, name),
            [sent, received, dtype = flat.dtype()] {
              return SumRows(received, dtype);
            }};
  }
  // In place: this rank's slice of the bucket becomes the sum.
  const Tensor own = rows.Slice(group.rank(), group.rank() + 1);
  return {own.Reshape({part}), group.ReduceScatter(rows, own, name)};
}

void GradientReducer::StartTravel(int bucket) {
  FinishTravel();
  State& state = states_[bucket];
  travel_ = {bucket, state.flat, StartShardSum(bucket, state.flat)};
  if (keeps_shard(bucket)) {
    state.flat = Tensor();
    PointGradients(bucket);
    state.contributed.assign(state.contributed.size(), false);
  }
}

void GradientReducer::FinishTravel() {
  if (!travel_.has_value()) return;
  Travel travel = *std::exchange(travel_, std::nullopt);
  State& state = states_[travel.bucket];
  const Tensor sum = travel.sum.Wait();
  TakeShardSum(travel.bucket, sum, travel.flat, state.shard);
}

void GradientReducer::TakeShardSum(int bucket, const Tensor& sum,
                                   const Tensor& whole, const Tensor& shard) {
  if (keeps_shard(bucket)) {
    AddInPlace(sum, shard);
  } else if (buckets_[bucket].sharding.bf16_messages) {
    // Else the sum is in place.
    Communicator& group = ShardGroup(bucket);
    const int64_t part = whole.num_elements() / group.size();
    whole.Slice(group.rank() * part, (group.rank() + 1) * part).CopyFrom(sum);
  }
  if (Complete(bucket)) StartRest(bucket, whole, shard);
}

GradientReducer::Summed GradientReducer::SumOverRanks(int bucket,
                                                      const Tensor& whole,
                                                      const Tensor& shard) {
  CHECK(!in_place(bucket)) << "bucket " << bucket;
  State& state = states_[bucket];
  const ParameterBucket& layout = buckets_[bucket];
  const bool replicated =
      layout.sharding.level == DataSharding::Level::kReplicated;
  // What all microbatches add up to is summed once, where all of it is kept.
  if (!keeps_shard(bucket) && !Complete(bucket)) return {whole, state.flat};
  if (replicated && !layout.sharding.bf16_messages) {
    StartAllReduce(bucket, whole);
  } else {
    TakeShardSum(bucket, StartShardSum(bucket, whole).Wait(), whole, shard);
  }
  state.reduction.Wait();
  if (replicated) return {whole, state.flat};
  if (keeps_shard(bucket)) return {shard, state.shard};
  return {layout.Shard(whole), layout.Shard(state.flat)};
}

bool GradientReducer::Complete(int bucket) const {
  const State& state = states_[bucket];
  return std::all_of(state.missing.begin(), state.missing.end(),
                     [](int missing) { return missing == 0; }) &&
         !(keeps_shard(bucket) && state.flat.defined());
}

bool GradientReducer::Untouched(int bucket) const {
  const std::vector<int>& missing = states_[bucket].missing;
  return std::all_of(missing.begin(), missing.end(), [this](int contributions) {
    return contributions == contributions_;
  });
}

void GradientReducer::Start(int bucket) {
  State& state = states_[bucket];
  if (state.finished) return;
  state.finished = true;
  const ParameterBucket& layout = buckets_[bucket];
  for (size_t i = 0; i < layout.parameters.size(); ++i) {
    CHECK_EQ(state.missing[i], 0)
        << layout.parameters[i]->name << " lacks gradient contributions";
  }
  if (timing_ == Timing::kInOrder && in_place(bucket)) StartSum(bucket);
  // Contributions of two microbatches never meet: see Tape's AddContribution.
  CHECK(!keeps_shard(bucket) || !state.flat.defined()) << "bucket " << bucket;
  if (travel_.has_value() && travel_->bucket == bucket) FinishTravel();
}

void GradientReducer::StartRest(int bucket, const Tensor& whole,
                                const Tensor& shard) {
  State& state = states_[bucket];
  CHECK(!std::exchange(state.rest_started, true));
  const ParameterBucket& layout = buckets_[bucket];
  const DataSharding& sharding = layout.sharding;
  const std::string name = fmt::format("gradient bucket {}", bucket);
  if (sharding.level == DataSharding::Level::kReplicated) {
    Communicator& group = ShardGroup(bucket);
    if (group.size() > 1) {
      const int64_t part = whole.num_elements() / group.size();
      state.reduction = group.AllGather(
          whole.Slice(group.rank() * part, (group.rank() + 1) * part), whole,
          name);
    }
    return;
  }
  AxisSet rest = layout.axes;
  rest.erase(Axis::kData);
  Communicator& group = context_.communicators().ForReplicas(rest);
  if (group.size() > 1) {
    state.reduction =
        group.AllReduce(keeps_shard(bucket) ? shard : layout.Shard(whole),
                        ReduceOp::kSum, name);
  }
}

void GradientReducer::Wait(int bucket) {
  Start(bucket);
  states_[bucket].reduction.Wait();
}

void GradientReducer::Scale(int bucket, double factor) {
  const State& state = states_[bucket];
  ScaleInPlace(
      keeps_shard(bucket) ? state.shard : buckets_[bucket].Shard(state.flat),
      factor);
}

Tensor GradientReducer::OwnedGradient(int bucket, int i) const {
  const State& state = states_[bucket];
  return buckets_[bucket].OwnedInShard(
      keeps_shard(bucket) ? state.shard : buckets_[bucket].Shard(state.flat),
      i);
}

}  // namespace trireme
