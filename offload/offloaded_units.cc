#include "offload/offloaded_units.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "fmt/format.h"
#include "parallel/optimizer/owned_parameter.h"
#include "parallel/parameters/frozen_parameters.h"
#include "runtime/core/log.h"
#include "runtime/ops/transfer.h"

namespace trireme {
namespace {

// Of UnitLayout::Buffers.
enum : size_t { kValues, kCodes, kScales };

// Of OffloadedUnits::Buffers::gradients.
enum : size_t { kWhole, kShards };

}  // namespace

OffloadedUnits::OffloadedUnits(
    ParallelContext& context,
    const std::vector<std::unique_ptr<Parameter>>& parameters,
    const UnitHome& home, const ParameterBuckets& buckets,
    GradientReducer& reducer, const Buffers& buffers, uint64_t seed)
    : context_(context),
      buckets_(buckets),
      reducer_(reducer),
      buffers_(buffers),
      stays_(context, buckets, seed) {
  for (const auto& parameter : parameters) {
    if (parameter->trainable || LiesAtHome(*parameter, home)) continue;
    MakeValues(context.device(), seed, *parameter);
  }
  using enum UnitLayout::Where;
  std::map<int, UnitLayout> on_device =
      LayOutUnits(parameters, buckets, home, kDevice);
  for (auto& [number, layout] : LayOutUnits(parameters, buckets, home, kHome)) {
    Unit& unit = units_[number];
    unit.layout = std::move(on_device.at(number));
    unit.at_home = std::move(layout);
    for (const UnitLayout::Part& part : unit.at_home.parts) {
      unit.owned_parts += buckets[part.bucket].OwnsAny() ? 1 : 0;
    }
    MakeHome(number, unit, *home.device, seed);
  }
}

void OffloadedUnits::MakeHome(int number, Unit& unit, Device& device,
                              uint64_t seed) {
  const UnitLayout& layout = unit.at_home;
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
    for (int i = 0; i < static_cast<int>(bucket.parameters.size()); ++i) {
      const ElementRange owned = bucket.Owned(i);
      if (owned.size() == 0) continue;
      Parameter whole = *bucket.parameters[i];
      const Tensor at_home = OwnedOf(bucket, part.Of(home[kValues]), i);
      if (bucket.shards == 1) {
        whole.value = at_home;
        InitializeParameter(seed, whole);
        continue;
      }
      whole.value = Tensor::Empty(
          at_home.device(), LocalShape(whole.global_shape, whole.shards),
          whole.dtype, MemoryCategory::kWorkspace, "initial values");
      InitializeParameter(seed, whole);
      at_home.CopyFrom(whole.value.Reshape({-1}).Slice(owned.begin, owned.end));
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
      std::find_if(unit.at_home.parts.begin(), unit.at_home.parts.end(),
                   [bucket](const UnitLayout::Part& candidate) {
                     return candidate.bucket == bucket;
                   });
  CHECK(part != unit.at_home.parts.end()) << "bucket " << bucket;
  return *part;
}

Tensor OffloadedUnits::OwnedOf(const ParameterBucket& bucket,
                               const Tensor& at_home, int i) const {
  return bucket.shards == 1 ? bucket.Slice(at_home, i)
                            : bucket.OwnedInShard(at_home, i);
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
  if (layout.device == &context_.device()) return stays_.OwnedValue(bucket, i);
  const Unit& unit = units_.at(layout.parameters[i]->unit);
  return OwnedOf(layout, PartOf(unit, bucket).Of(unit.home[kValues]), i);
}

Parameter OffloadedUnits::AtHome(const Parameter& parameter) const {
  Parameter at_home = parameter;
  const auto found = units_.find(parameter.unit);
  if (found == units_.end()) return at_home;
  for (const UnitLayout::Frozen& frozen : found->second.at_home.frozen) {
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
       units_.at(parameter.unit).at_home.frozen) {
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

std::vector<Tensor> OffloadedUnits::copied_memory() const {
  std::vector<Tensor> memory;
  for (const auto& [number, unit] : units_) {
    if (unit.in_window < 0) {
      std::copy_if(unit.home.begin(), unit.home.end(),
                   std::back_inserter(memory),
                   [](const Tensor& tensor) { return tensor.defined(); });
    }
    for (const UnitLayout::Part& part : unit.at_home.parts) {
      memory.push_back(reducer_.Accumulators(part.bucket));
    }
  }
  return memory;
}

void OffloadedUnits::OpenValues(int bucket,
                                std::vector<OwnedParameter>& owned) {
  const ParameterBucket& layout = buckets_[bucket];
  const int number = WindowUnit(layout.parameters.front()->unit);
  if (number < 0) return;
  const Unit& unit = units_.at(layout.parameters.front()->unit);
  const Tensor values =
      PartOf(unit, bucket).Of(buffers_.window->Open(number)[kValues]);
  // Parameters of which this rank owns nothing are left out.
  auto next = owned.begin();
  for (int i = 0; i < static_cast<int>(layout.parameters.size()); ++i) {
    if (layout.Owned(i).size() == 0) continue;
    next++->value = OwnedOf(layout, values, i);
  }
  CHECK(next == owned.end()) << "bucket " << bucket;
}

void OffloadedUnits::CloseValues(int bucket, bool changed) {
  const int of_bucket = buckets_[bucket].parameters.front()->unit;
  const int number = WindowUnit(of_bucket);
  if (number < 0) return;
  Unit& unit = units_.at(of_bucket);
  if (!changed) {
    CHECK_EQ(unit.changed_parts, 0) << "unit " << of_bucket;
    buffers_.window->Unchanged(number);
  } else if (++unit.changed_parts == unit.owned_parts) {
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

void OffloadedUnits::CopyIn(Unit& unit, const std::vector<Tensor>& home,
                            Stream& copy_in) {
  const auto copy = [&](const Tensor& from, const Tensor& to) {
    Transfer(from, to, copy_in);
    copied_.to_device += from.bytes();
  };
  const std::vector<int64_t> at_home = unit.at_home.Elements();
  const std::vector<int64_t> on_device = unit.layout.Elements();
  for (size_t i = 0; i < home.size(); ++i) {
    if (on_device[i] == 0) continue;
    // What is alike in both goes at once; of the rest each shard by itself.
    int64_t from = 0, to = 0;
    if (at_home[i] != on_device[i]) {
      for (size_t p = 0; p < unit.layout.parts.size(); ++p) {
        const UnitLayout::Part& part = unit.layout.parts[p];
        copy(unit.at_home.parts[p].Of(home[i]),
             buckets_[part.bucket].Shard(part.Of(unit.place[i])));
      }
      from = unit.at_home.trained;
      to = unit.layout.trained;
    }
    if (to == on_device[i]) continue;
    copy(home[i].Slice(from, at_home[i]),
         unit.place[i].Slice(to, on_device[i]));
  }
}

void OffloadedUnits::Fetch(int number) {
  Unit* const unit = Find(number);
  if (unit == nullptr) {
    // Where ranks share it, in the compute stream's memory.
    const StreamScope computing(context_.device(), StreamKind::kCompute);
    stays_.Fetch(number);
    return;
  }
  if (!unit->place.empty()) return;
  Stream& copy_in = context_.device().stream(StreamKind::kCopyIn);
  unit->place = buffers_.places.Take(copy_in);
  UnitWindow* const window = unit->in_window < 0 ? nullptr : buffers_.window;
  const std::vector<Tensor>& home =
      window != nullptr ? window->Take(unit->in_window, copy_in) : unit->home;
  copies_in_.Time(copy_in, [&] { CopyIn(*unit, home, copy_in); });
  unit->arrival = copy_in.Record();
  if (window != nullptr) window->TookUntil(unit->in_window, unit->arrival);
  const StreamScope arriving(context_.device(), StreamKind::kCopyIn);
  for (const UnitLayout::Part& part : unit->layout.parts) {
    const ParameterBucket& bucket = buckets_[part.bucket];
    const Tensor values = part.Of(unit->place[kValues]);
    if (bucket.shards > 1) {
      unit->gathers.push_back(
          context_.communicators().ShardParameters().AllGather(
              bucket.Shard(values), values,
              fmt::format("parameters of unit {}", number)));
    }
    for (size_t i = 0; i < bucket.parameters.size(); ++i) {
      bucket.parameters[i]->value = bucket.Slice(values, static_cast<int>(i));
    }
  }
  for (const UnitLayout::Frozen& frozen : unit->layout.frozen) {
    Point(frozen, unit->place, *frozen.parameter);
  }
}

void OffloadedUnits::AwaitGathers(Unit& unit) {
  Stream& compute = context_.device().stream();
  waits_for_arrivals_.Time(compute, [&] {
    for (Event& gather : std::exchange(unit.gathers, {})) gather.Wait(compute);
  });
}

void OffloadedUnits::Bring(int number) {
  stays_.Bring(number);
  Unit* const unit = Find(number);
  if (unit == nullptr) return;
  CHECK(!unit->place.empty()) << "unit " << number << " is not on the device";
  AwaitArrival(std::exchange(unit->arrival, {}));
  if (!unit->gathers.empty()) AwaitGathers(*unit);
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
  // One that nothing has used.
  Stream& compute = context_.device().stream();
  std::exchange(unit->arrival, {}).Wait(compute);
  if (!unit->gathers.empty()) AwaitGathers(*unit);
  buffers_.places.Return(std::exchange(unit->place, {}), compute);
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
    for (const Tensor& buffer : unit->gradients) {
      if (buffer.defined()) buffer.FillZero();
    }
  } else {
    Stream& copy_in = device.stream(StreamKind::kCopyIn);
    unit->gradients = buffers_.gradients.Take(copy_in);
    unit->saved.Wait(copy_in);
    copies_in_.Time(copy_in, [&] {
      for (size_t i = 0; i < unit->layout.parts.size(); ++i) {
        const int bucket = unit->layout.parts[i].bucket;
        const Tensor& sums = reducer_.Accumulators(bucket);
        Transfer(sums,
                 reducer_.keeps_shard(bucket)
                     ? unit->at_home.parts[i].Of(unit->gradients[kShards])
                     : unit->layout.parts[i].Of(unit->gradients[kWhole]),
                 copy_in);
        copied_.to_device += sums.bytes();
      }
    });
    AwaitArrival(copy_in.Record());
    for (const UnitLayout::Part& part : unit->layout.parts) {
      // Its sum over ranks is added to what came.
      if (!reducer_.keeps_shard(part.bucket)) continue;
      part.Of(unit->gradients[kWhole]).FillZero();
    }
  }
  for (const UnitLayout::Part& part : unit->layout.parts) {
    const ParameterBucket& bucket = buckets_[part.bucket];
    for (size_t i = 0; i < bucket.parameters.size(); ++i) {
      bucket.parameters[i]->grad =
          bucket.Slice(part.Of(unit->gradients[kWhole]), static_cast<int>(i));
    }
  }
}

void OffloadedUnits::SaveGradients(int number) {
  Unit* const unit = Find(number);
  if (unit == nullptr || unit->layout.parts.empty()) return;
  const StreamScope leaving(context_.device(), StreamKind::kCopyOut);
  Stream& copy_out = context_.device().stream();
  for (size_t i = 0; i < unit->layout.parts.size(); ++i) {
    const UnitLayout::Part& part = unit->layout.parts[i];
    const GradientReducer::Summed summed = reducer_.SumOverRanks(
        part.bucket, part.Of(unit->gradients[kWhole]),
        reducer_.keeps_shard(part.bucket)
            ? unit->at_home.parts[i].Of(unit->gradients[kShards])
            : Tensor());
    copies_out_.Time(copy_out,
                     [&] { Transfer(summed.sums, summed.kept, copy_out); });
    copied_.to_home += summed.sums.bytes();
    for (Parameter* parameter : buckets_[part.bucket].parameters) {
      parameter->grad = Tensor();
    }
  }
  unit->saved = copy_out.Record();
  if (unit->in_window >= 0 && unit->owned_parts > 0) {
    buffers_.window->ExpectUpdate(unit->in_window);
  }
  buffers_.gradients.Return(std::exchange(unit->gradients, {}), copy_out);
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
