#include "offload/offloaded_units.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"
#include "runtime/core/log.h"
#include "runtime/ops/transfer.h"

namespace trireme {

int64_t LargestUnit(const ParameterBuckets& buckets, const Device& device) {
  std::map<int, int64_t> elements;
  for (int b = 0; b < buckets.size(); ++b) {
    if (buckets[b].device == &device) continue;
    elements[buckets[b].parameters[0]->unit] += buckets[b].elements;
  }
  int64_t largest = 0;
  for (const auto& [unit, count] : elements) largest = std::max(largest, count);
  return largest;
}

OffloadedUnits::OffloadedUnits(ParallelContext& context,
                               const ParameterBuckets& buckets,
                               const GradientReducer& reducer,
                               DeviceBuffers& places,
                               DeviceBuffers& gradient_buffers, uint64_t seed)
    : context_(context),
      buckets_(buckets),
      reducer_(reducer),
      places_(places),
      gradient_buffers_(gradient_buffers) {
  for (int b = 0; b < buckets.size(); ++b) {
    const ParameterBucket& bucket = buckets[b];
    if (bucket.device != &context.device()) {
      Unit& unit = units_[bucket.parameters[0]->unit];
      unit.parts.push_back({b, unit.elements});
      unit.elements += bucket.elements;
      continue;
    }
    for (Parameter* parameter : bucket.parameters) {
      parameter->value = Tensor::Empty(
          context.device(),
          LocalShape(parameter->global_shape, parameter->shards),
          parameter->dtype, MemoryCategory::kParameters, parameter->name);
      InitializeParameter(seed, *parameter);
    }
  }
  for (auto& [number, unit] : units_) {
    const ParameterBucket& first = buckets[unit.parts.front().bucket];
    unit.home =
        Tensor::Zeros(*first.device, {unit.elements},
                      first.parameters[0]->dtype, MemoryCategory::kParameters,
                      fmt::format("parameters of unit {}", number));
    for (const Part& part : unit.parts) {
      const ParameterBucket& bucket = buckets[part.bucket];
      for (size_t i = 0; i < bucket.parameters.size(); ++i) {
        Parameter at_home = *bucket.parameters[i];
        at_home.value =
            bucket.Slice(SliceOf(part, unit.home), static_cast<int>(i));
        InitializeParameter(seed, at_home);
      }
    }
  }
}

OffloadedUnits::~OffloadedUnits() {
  Device& device = context_.device();
  device.stream(StreamKind::kCopyIn).Synchronize();
  device.stream(StreamKind::kCopyOut).Synchronize();
}

OffloadedUnits::Unit* OffloadedUnits::Find(int unit) {
  const auto found = units_.find(unit);
  return found == units_.end() ? nullptr : &found->second;
}

const OffloadedUnits::Part& OffloadedUnits::PartOf(const Unit& unit,
                                                   int bucket) const {
  const auto part = std::find_if(
      unit.parts.begin(), unit.parts.end(),
      [bucket](const Part& candidate) { return candidate.bucket == bucket; });
  CHECK(part != unit.parts.end()) << "bucket " << bucket;
  return *part;
}

Tensor OffloadedUnits::SliceOf(const Part& part, const Tensor& buffer) const {
  return buffer.Slice(part.begin, part.begin + buckets_[part.bucket].elements);
}

Tensor OffloadedUnits::OwnedValue(int bucket, int i) const {
  const ParameterBucket& layout = buckets_[bucket];
  const Parameter& parameter = *layout.parameters[i];
  const auto found = units_.find(parameter.unit);
  if (found == units_.end()) return parameter.value;
  const Unit& unit = found->second;
  return layout.Slice(SliceOf(PartOf(unit, bucket), unit.home), i);
}

void OffloadedUnits::Fetch(int number) {
  Unit* const unit = Find(number);
  if (unit == nullptr || unit->place.defined()) return;
  Stream& copy_in = context_.device().stream(StreamKind::kCopyIn);
  unit->place = places_.Take(copy_in);
  Transfer(unit->home, unit->place.Slice(0, unit->elements), copy_in);
  unit->arrival = copy_in.Record();
  for (const Part& part : unit->parts) {
    const ParameterBucket& bucket = buckets_[part.bucket];
    for (size_t i = 0; i < bucket.parameters.size(); ++i) {
      bucket.parameters[i]->value =
          bucket.Slice(SliceOf(part, unit->place), static_cast<int>(i));
    }
  }
}

void OffloadedUnits::Bring(int number) {
  Unit* const unit = Find(number);
  if (unit == nullptr) return;
  CHECK(unit->place.defined()) << "unit " << number << " is not on the device";
  Event(unit->arrival).Wait(context_.device().stream());
}

void OffloadedUnits::Publish(int bucket) {
  Unit* const unit = Find(buckets_[bucket].parameters[0]->unit);
  if (unit == nullptr || !unit->place.defined()) return;
  Stream& copy_in = context_.device().stream(StreamKind::kCopyIn);
  const Part& part = PartOf(*unit, bucket);
  Transfer(SliceOf(part, unit->home), SliceOf(part, unit->place), copy_in);
  unit->arrival = copy_in.Record();
}

void OffloadedUnits::Release(int number) {
  Unit* const unit = Find(number);
  if (unit == nullptr) return;
  for (const Part& part : unit->parts) {
    for (Parameter* parameter : buckets_[part.bucket].parameters) {
      parameter->value = Tensor();
    }
  }
  places_.Return(std::exchange(unit->place, Tensor()),
                 context_.device().stream().Record());
}

void OffloadedUnits::PrepareGradients(int number) {
  Unit* const unit = Find(number);
  if (unit == nullptr) return;
  Device& device = context_.device();
  if (reducer_.Untouched(unit->parts.front().bucket)) {
    unit->gradients = gradient_buffers_.Take(device.stream());
    unit->gradients.FillZero();
  } else {
    Stream& copy_in = device.stream(StreamKind::kCopyIn);
    unit->gradients = gradient_buffers_.Take(copy_in);
    unit->saved.Wait(copy_in);
    for (const Part& part : unit->parts) {
      Transfer(reducer_.Accumulators(part.bucket),
               SliceOf(part, unit->gradients), copy_in);
    }
    copy_in.Record().Wait(device.stream());
  }
  for (const Part& part : unit->parts) {
    const ParameterBucket& bucket = buckets_[part.bucket];
    for (size_t i = 0; i < bucket.parameters.size(); ++i) {
      bucket.parameters[i]->grad =
          bucket.Slice(SliceOf(part, unit->gradients), static_cast<int>(i));
    }
  }
}

void OffloadedUnits::SaveGradients(int number) {
  Unit* const unit = Find(number);
  if (unit == nullptr) return;
  Stream& copy_out = context_.device().stream(StreamKind::kCopyOut);
  for (const Part& part : unit->parts) {
    Transfer(SliceOf(part, unit->gradients), reducer_.Accumulators(part.bucket),
             copy_out);
    for (Parameter* parameter : buckets_[part.bucket].parameters) {
      parameter->grad = Tensor();
    }
  }
  unit->saved = copy_out.Record();
  gradient_buffers_.Return(std::exchange(unit->gradients, Tensor()),
                           unit->saved);
}

}  // namespace trireme
