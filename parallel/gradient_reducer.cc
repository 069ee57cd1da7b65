#include "parallel/gradient_reducer.h"

#include <algorithm>
#include <map>

#include "fmt/format.h"

namespace trireme {
namespace {

// Accumulators start at multiples of this many elements: aligned for vectors.
constexpr int64_t kAlignElements = 16;

int64_t Padded(int64_t elements) {
  return (elements + kAlignElements - 1) / kAlignElements * kAlignElements;
}

DType GradientDType(const Parameter& parameter) {
  return parameter.value.dtype() == DType::kFloat64 ? DType::kFloat64
                                                    : DType::kFloat32;
}

}  // namespace

GradientReducer::GradientReducer(
    ParallelContext& context,
    const std::vector<std::unique_ptr<Parameter>>& parameters,
    int64_t bucket_bytes, int contributions)
    : context_(context), contributions_(contributions) {
  std::map<AxisSet, int> open;  // the bucket being filled, per set of axes
  std::vector<int64_t> sizes;
  for (auto it = parameters.rbegin(); it != parameters.rend(); ++it) {
    Parameter& parameter = **it;
    const int64_t elements = Padded(parameter.value.num_elements());
    const int64_t bytes = elements * DTypeSize(GradientDType(parameter));
    auto found = open.find(parameter.gradient_sum_axes);
    const bool fits =
        found != open.end() && (sizes[found->second] + elements) *
                                       DTypeSize(GradientDType(parameter)) <=
                                   std::max(bucket_bytes, bytes);
    if (!fits) {
      open[parameter.gradient_sum_axes] = num_buckets();
      buckets_.emplace_back();
      buckets_.back().axes = parameter.gradient_sum_axes;
      sizes.push_back(0);
    }
    const int at = open[parameter.gradient_sum_axes];
    buckets_[at].parameters.push_back(&parameter);
    sizes[at] += elements;
    bucket_of_[&parameter] = at;
  }
  for (int i = 0; i < num_buckets(); ++i) {
    Bucket& bucket = buckets_[i];
    bucket.flat = Tensor::Zeros(
        context.device(), {sizes[i]}, GradientDType(*bucket.parameters[0]),
        MemoryCategory::kGradients, fmt::format("gradient bucket {}", i));
    int64_t offset = 0;
    for (Parameter* parameter : bucket.parameters) {
      const int64_t elements = parameter->value.num_elements();
      parameter->grad = bucket.flat.Slice(offset, offset + elements)
                            .Reshape(parameter->value.shape());
      offset += Padded(elements);
    }
  }
  BeginStep();
}

void GradientReducer::BeginStep() {
  next_to_start_ = 0;
  for (Bucket& bucket : buckets_) {
    bucket.flat.FillZero();
    bucket.started = false;
    bucket.incomplete = static_cast<int>(bucket.parameters.size());
    for (Parameter* parameter : bucket.parameters) {
      missing_[parameter] = contributions_;
    }
  }
}

void GradientReducer::Contribute(Parameter& parameter) {
  int& missing = missing_.at(&parameter);
  CHECK_GT(missing, 0) << parameter.name << ": one contribution too many";
  if (--missing > 0) return;
  --buckets_[bucket_of_.at(&parameter)].incomplete;
  StartCompleteBuckets();
}

void GradientReducer::StartCompleteBuckets() {
  while (next_to_start_ < num_buckets() &&
         buckets_[next_to_start_].incomplete == 0) {
    StartReduction(buckets_[next_to_start_], next_to_start_);
    ++next_to_start_;
  }
}

void GradientReducer::StartReduction(Bucket& bucket, int index) {
  bucket.started = true;
  std::vector<Communicator*> groups;
  for (const Axis axis : kAllAxes) {
    if (!bucket.axes.contains(axis)) continue;
    Communicator& group = context_.communicators().ForGradients(axis);
    if (group.size() > 1) groups.push_back(&group);
  }
  // Few and small parameters are summed over two axes (the scales of head
  // norms, over tp and dp): one axis after the other.
  for (Communicator* group : groups) {
    bucket.reduction.Wait();
    bucket.reduction = group->AllReduce(
        bucket.flat, ReduceOp::kSum, fmt::format("gradient bucket {}", index));
  }
}

void GradientReducer::Start(int bucket) {
  Bucket& wanted = buckets_[bucket];
  if (wanted.started) return;
  for (const Parameter* parameter : wanted.parameters) {
    CHECK_EQ(missing_.at(parameter), 0)
        << parameter->name << " lacks gradient contributions";
  }
  // An earlier bucket is still incomplete: a parameter of it had no use.
  CHECK(false) << "bucket " << bucket << " is complete but bucket "
               << next_to_start_ << " is not";
}

void GradientReducer::Wait(int bucket) {
  Start(bucket);
  buckets_[bucket].reduction.Wait();
}

}  // namespace trireme
