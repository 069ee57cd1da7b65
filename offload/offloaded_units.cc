#include "offload/offloaded_units.h"

#include <algorithm>
#include <string>
#include <utility>

#include "fmt/format.h"
#include "parallel/frozen_parameters.h"
#include "parallel/owned_parameter.h"
#include "runtime/core/log.h"
#include "runtime/ops/transfer.h"

namespace trireme {
namespace {

// Of UnitLayout::Buffers.
enum : size_t { kValues, kCodes, kScales };

}  // namespace

OffloadedUnits::OffloadedUnits(
    ParallelContext& context,
    const std::vector<std::unique_ptr<Parameter>>& parameters,
    const UnitHome& home, const ParameterBuckets& buckets,
    const GradientReducer& reducer, const Buffers& buffers, uint64_t seed)
    : context_(context),
      buckets_(buckets),
      reducer_(reducer),
      buffers_(buffers) {
  for (const auto& parameter : parameters) {
    if (home.Has(parameter->unit) && (home.trained || !parameter->trainable)) {
      continue;
    }
    MakeValues(context.device(), seed, *parameter);
  }
  for (auto& [number, layout] : LayOutUnits(parameters, buckets, home)) {
    Unit& unit = units_[number];
    unit.layout = std::move(layout);
    MakeHome(number, unit, *home.device, seed);
  }
}

void OffloadedUnits::MakeHome(int number, Unit& unit, Device& device,
                              uint64_t seed) {
  const UnitLayout& layout = unit.layout;
  const DType dtype =
      (layout.parts.empty()
           ? layout.frozen.front().parameter
           : buckets_[layout.parts.front().bucket].parameters.front())
          ->dtype;
  const std::vector<DeviceBuffers::Buffer> set = layout.Buffers(dtype);
  const std::string label = fmt::format("parameters of unit {}", number);
  if (UnitWindow* const window = buffers_.window) {
    // Values that are masters are read by what updates them; frozen ones beside
    // them stay what they were.
    unit.in_window = window->Add(
        set, !layout.frozen.empty() || dtype == ComputeDType(dtype), label);
    unit.home = window->OnDrive(unit.in_window);
    MakeInitialValues(layout, window->Open(unit.in_window), seed);
    window->Changed(unit.in_window);
    return;
  }
  for (const auto& [elements, type] : set) {
    unit.home.push_back(
        elements == 0 ? Tensor()
                      : Tensor::Zeros(device, {elements}, type,
                                      MemoryCategory::kParameters, label));
  }
  MakeInitialValues(layout, unit.home, seed);
}

void OffloadedUnits::MakeInitialValues(const UnitLayout& layout,
                                       const std::vector<Tensor>& home,
                                       uint64_t seed) const {
  for (const UnitLayout::Part& part : layout.parts) {
    const ParameterBucket& bucket = buckets_[part.bucket];
    for (size_t i = 0; i < bucket.parameters.size(); ++i) {
      Parameter at_home = *bucket.parameters[i];
      at_home.value =
          bucket.Slice(SliceOf(part, home[kValues]), static_cast<int>(i));
      InitializeParameter(seed, at_home);
    }
  }
  for (const UnitLayout::Frozen& frozen : layout.frozen) {
    Parameter at_home = *frozen.parameter;
    Point(frozen, home, at_home);
    InitializeFrozen(seed, at_home);
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

const UnitLayout::Part& OffloadedUnits::PartOf(const Unit& unit,
                                               int bucket) const {
  const auto part =
      std::find_if(unit.layout.parts.begin(), unit.layout.parts.end(),
                   [bucket](const UnitLayout::Part& candidate) {
                     return candidate.bucket == bucket;
                   });
  CHECK(part != unit.layout.parts.end()) << "bucket " << bucket;
  return *part;
}

Tensor OffloadedUnits::SliceOf(const UnitLayout::Part& part,
                               const Tensor& buffer) const {
  return buffer.Slice(part.begin, part.begin + buckets_[part.bucket].elements);
}

void OffloadedUnits::Point(const UnitLayout::Frozen& frozen,
                           const std::vector<Tensor>& buffers,
                           Parameter& parameter) {
  const auto slice = [&](size_t buffer, int64_t begin, int64_t elements) {
    return buffers[buffer].Slice(begin, begin + elements);
  };
  if (parameter.format == WeightFormat::kFull) {
    parameter.value =
        slice(kValues, frozen.begin, parameter.local_elements())
            .Reshape(LocalShape(parameter.global_shape, parameter.shards));
    return;
  }
  const QuantizedMatrix layout = QuantizedLayout(parameter);
  parameter.quantized = {
      .layout = layout,
      .codes = slice(kCodes, frozen.begin, layout.rows * layout.code_bytes()),
      .scales =
          slice(kScales, frozen.scales_begin, layout.rows * layout.blocks())};
}

Tensor OffloadedUnits::OwnedValue(int bucket, int i) const {
  const ParameterBucket& layout = buckets_[bucket];
  const Parameter& parameter = *layout.parameters[i];
  if (layout.device == &context_.device()) return parameter.value;
  const Unit& unit = units_.at(parameter.unit);
  return layout.Slice(SliceOf(PartOf(unit, bucket), unit.home[kValues]), i);
}

Parameter OffloadedUnits::AtHome(const Parameter& parameter) const {
  Parameter at_home = parameter;
  const auto found = units_.find(parameter.unit);
  if (found == units_.end()) return at_home;
  for (const UnitLayout::Frozen& frozen : found->second.layout.frozen) {
    if (frozen.parameter == &parameter) {
      Point(frozen, found->second.home, at_home);
    }
  }
  return at_home;
}

Parameter OffloadedUnits::InMemory(const Parameter& parameter, bool writes) {
  const int number = WindowUnit(parameter.unit);
  if (number < 0) return AtHome(parameter);
  Parameter in_memory = parameter;
  for (const UnitLayout::Frozen& frozen :
       units_.at(parameter.unit).layout.frozen) {
    if (frozen.parameter != &parameter) continue;
    Point(frozen, buffers_.window->Open(number, /*read=*/true), in_memory);
    // Others of the unit may follow: it is written when they have.
    if (writes) buffers_.window->Changed(number, /*now=*/false);
  }
  return in_memory;
}

int OffloadedUnits::WindowUnit(int unit) const {
  const auto found = units_.find(unit);
  return found == units_.end() ? -1 : found->second.in_window;
}

void OffloadedUnits::OpenValues(int bucket,
                                std::vector<OwnedParameter>& owned) {
  const ParameterBucket& layout = buckets_[bucket];
  const int number = WindowUnit(layout.parameters.front()->unit);
  if (number < 0) return;
  const Unit& unit = units_.at(layout.parameters.front()->unit);
  const Tensor values =
      SliceOf(PartOf(unit, bucket), buffers_.window->Open(number)[kValues]);
  CHECK_EQ(owned.size(), layout.parameters.size());
  for (size_t i = 0; i < owned.size(); ++i) {
    owned[i].value = layout.Slice(values, static_cast<int>(i));
  }
}

void OffloadedUnits::CloseValues(int bucket, bool changed) {
  const int of_bucket = buckets_[bucket].parameters.front()->unit;
  const int number = WindowUnit(of_bucket);
  if (number < 0) return;
  Unit& unit = units_.at(of_bucket);
  if (!changed) {
    CHECK_EQ(unit.changed_parts, 0u) << "unit " << of_bucket;
    buffers_.window->Unchanged(number);
  } else if (++unit.changed_parts == unit.layout.parts.size()) {
    unit.changed_parts = 0;
    buffers_.window->Changed(number);
  }
}

void OffloadedUnits::AwaitArrival(Event arrival) {
  Stream& compute = context_.device().stream();
  waits_for_arrivals_.Time(compute, [&] { arrival.Wait(compute); });
}

CopyTimes OffloadedUnits::copy_times() const {
  CopyTimes times{.to_device = copies_in_.seconds(),
                  .to_home = copies_out_.seconds(),
                  .waited_for_arrivals = waits_for_arrivals_.seconds(),
                  .waited_for_departures = waits_for_departures_.seconds()};
  Device& device = context_.device();
  if (device.stream(StreamKind::kCopyIn).synchronous()) {
    times.waited_for_arrivals += times.to_device;
    times.waited_for_departures += times.to_home;
  }
  return times;
}

void OffloadedUnits::Fetch(int number) {
  Unit* const unit = Find(number);
  if (unit == nullptr || !unit->place.empty()) return;
  Stream& copy_in = context_.device().stream(StreamKind::kCopyIn);
  unit->place = buffers_.places.Take(copy_in);
  UnitWindow* const window = unit->in_window < 0 ? nullptr : buffers_.window;
  const std::vector<Tensor>& home =
      window != nullptr ? window->Take(unit->in_window, copy_in) : unit->home;
  const std::vector<int64_t> elements = unit->layout.Elements();
  copies_in_.Time(copy_in, [&] {
    for (size_t i = 0; i < home.size(); ++i) {
      if (elements[i] == 0) continue;
      const Tensor source = home[i].Slice(0, elements[i]);
      Transfer(source, unit->place[i].Slice(0, elements[i]), copy_in);
      copied_.to_device += source.bytes();
    }
  });
  unit->arrival = copy_in.Record();
  if (window != nullptr) window->TookUntil(unit->in_window, unit->arrival);
  for (const UnitLayout::Part& part : unit->layout.parts) {
    const ParameterBucket& bucket = buckets_[part.bucket];
    for (size_t i = 0; i < bucket.parameters.size(); ++i) {
      bucket.parameters[i]->value = bucket.Slice(
          SliceOf(part, unit->place[kValues]), static_cast<int>(i));
    }
  }
  for (const UnitLayout::Frozen& frozen : unit->layout.frozen) {
    Point(frozen, unit->place, *frozen.parameter);
  }
}

void OffloadedUnits::Bring(int number) {
  Unit* const unit = Find(number);
  if (unit == nullptr) return;
  CHECK(!unit->place.empty()) << "unit " << number << " is not on the device";
  AwaitArrival(unit->arrival);
}

void OffloadedUnits::Release(int number) {
  Unit* const unit = Find(number);
  if (unit == nullptr) return;
  for (const UnitLayout::Part& part : unit->layout.parts) {
    for (Parameter* parameter : buckets_[part.bucket].parameters) {
      parameter->value = Tensor();
    }
  }
  for (const UnitLayout::Frozen& frozen : unit->layout.frozen) {
    frozen.parameter->value = Tensor();
    frozen.parameter->quantized = QuantizedTensor();
  }
  buffers_.places.Return(std::exchange(unit->place, {}),
                         context_.device().stream().Record());
}

void OffloadedUnits::PrepareGradients(int number) {
  Unit* const unit = Find(number);
  if (unit == nullptr || unit->layout.parts.empty()) return;
  // What another microbatch has left is still there.
  if (!unit->gradients.empty()) return;
  Device& device = context_.device();
  if (reducer_.Untouched(unit->layout.parts.front().bucket)) {
    waits_for_departures_.Time(device.stream(), [&] {
      unit->gradients = buffers_.gradients.Take(device.stream());
    });
    unit->gradients.front().FillZero();
  } else {
    Stream& copy_in = device.stream(StreamKind::kCopyIn);
    unit->gradients = buffers_.gradients.Take(copy_in);
    unit->saved.Wait(copy_in);
    copies_in_.Time(copy_in, [&] {
      for (const UnitLayout::Part& part : unit->layout.parts) {
        const Tensor& sums = reducer_.Accumulators(part.bucket);
        Transfer(sums, SliceOf(part, unit->gradients.front()), copy_in);
        copied_.to_device += sums.bytes();
      }
    });
    AwaitArrival(copy_in.Record());
  }
  for (const UnitLayout::Part& part : unit->layout.parts) {
    const ParameterBucket& bucket = buckets_[part.bucket];
    for (size_t i = 0; i < bucket.parameters.size(); ++i) {
      bucket.parameters[i]->grad = bucket.Slice(
          SliceOf(part, unit->gradients.front()), static_cast<int>(i));
    }
  }
}

void OffloadedUnits::SaveGradients(int number) {
  Unit* const unit = Find(number);
  if (unit == nullptr || unit->layout.parts.empty()) return;
  Stream& copy_out = context_.device().stream(StreamKind::kCopyOut);
  copies_out_.Time(copy_out, [&] {
    for (const UnitLayout::Part& part : unit->layout.parts) {
      const Tensor& sums = reducer_.Accumulators(part.bucket);
      Transfer(SliceOf(part, unit->gradients.front()), sums, copy_out);
      copied_.to_home += sums.bytes();
      for (Parameter* parameter : buckets_[part.bucket].parameters) {
        parameter->grad = Tensor();
      }
    }
  });
  unit->saved = copy_out.Record();
  if (unit->in_window >= 0) buffers_.window->ExpectUpdate(unit->in_window);
  buffers_.gradients.Return(std::exchange(unit->gradients, {}), unit->saved);
}

UnitStore::BringBack OffloadedUnits::TakeAway(std::vector<Tensor> tensors) {
  if (tensors.empty()) return [] { return std::vector<Tensor>(); };
  struct Away {
    Shape shape;
    DType dtype = DType::kFloat32;
    int64_t begin = 0;  // in the buffer
  };
  std::vector<Away> away;
  int64_t bytes = 0;
  for (const Tensor& tensor : tensors) {
    away.push_back({tensor.shape(), tensor.dtype(), bytes});
    bytes += Arena::Aligned(tensor.bytes());
  }
  // Memory of the device is free once the stream that is current then has
  // passed.
  const StreamScope leaving(context_.device(), StreamKind::kCopyOut);
  Stream& copy_out = context_.device().stream();
  Tensor buffer = buffers_.inputs.Take(bytes, copy_out);
  copies_out_.Time(copy_out, [&] {
    for (size_t i = 0; i < tensors.size(); ++i) {
      TransferBytes(
          tensors[i],
          buffer.Slice(away[i].begin, away[i].begin + tensors[i].bytes()),
          copy_out);
      copied_.to_home += tensors[i].bytes();
    }
  });
  tensors.clear();
  return [this, away = std::move(away), buffer = std::move(buffer)]() mutable {
    const StreamScope returning(context_.device(), StreamKind::kCopyIn);
    Stream& copy_in = context_.device().stream();
    std::vector<Tensor> back;
    copies_in_.Time(copy_in, [&] {
      for (const auto& [shape, dtype, begin] : away) {
        const Tensor& tensor = back.emplace_back(
            Tensor::Empty(context_.device(), shape, dtype,
                          MemoryCategory::kActivations, "input of a block"));
        TransferBytes(buffer.Slice(begin, begin + tensor.bytes()), tensor,
                      copy_in);
        copied_.to_device += tensor.bytes();
      }
    });
    buffers_.inputs.Return(std::move(buffer), copy_in.Record());
    return back;
  };
}

}  // namespace trireme
