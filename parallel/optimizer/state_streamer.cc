#include "parallel/optimizer/state_streamer.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "fmt/format.h"
#include "runtime/core/log.h"
#include "runtime/device/nvme/aligned.h"
#include "runtime/ops/transfer.h"

namespace trireme {
namespace {

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace

int64_t StateStreamer::LayOut(const Tensor& states, bool average,
                              std::vector<OwnedParameter>& parts) {
  int64_t end = 0;
  for (OwnedParameter& part : parts) {
    const DType dtype = ComputeDType(part.value.dtype());
    const int64_t elements = part.value.num_elements();
    const auto place = [&](Tensor& tensor) {
      if (states.defined()) {
        tensor = states.Slice(end, end + elements).Reshape(part.value.shape());
      }
      end += RoundUp(elements, kTensorBytes / DTypeSize(dtype));
    };
    if (part.value.dtype() == dtype) {
      part.master = part.value;
    } else {
      place(part.master);
    }
    place(part.m);
    place(part.v);
    if (average) place(part.ema);
  }
  return end;
}

void StateStreamer::Add(int bucket, std::vector<OwnedParameter>& parts,
                        bool average, const StoredBucket& values) {
  CHECK(!parts.empty() && buffers_.empty());
  const DType dtype = ComputeDType(parts.front().value.dtype());
  const int64_t elements = RoundUp(LayOut(Tensor(), average, parts),
                                   kBucketBytes / DTypeSize(dtype));
  Bucket& added = buckets_[bucket];
  added.parts = &parts;
  added.values = values;
  added.states =
      Tensor::Empty(drive_, {elements}, dtype, MemoryCategory::kOptimizer,
                    fmt::format("states of bucket {}", bucket));
  LayOut(added.states, average, parts);
  step_bytes_ += added.states.bytes();
}

void StateStreamer::MakeBuffers() {
  // Any bucket may come into any buffer.
  const auto largest = std::max_element(
      buckets_.begin(), buckets_.end(), [](const auto& a, const auto& b) {
        return a.second.states.num_elements() < b.second.states.num_elements();
      });
  for (size_t i = 0; i < std::min<size_t>(kBuffers, buckets_.size()); ++i) {
    const Tensor& states = largest->second.states;
    buffers_.emplace_back().memory =
        EmptyAligned(home_, states.num_elements(), states.dtype(),
                     MemoryCategory::kOptimizer,
                     "states on their way from and to the drive");
  }
}

std::vector<Tensor> StateStreamer::buffers() const {
  std::vector<Tensor> buffers;
  for (const Buffer& buffer : buffers_) buffers.push_back(buffer.memory);
  return buffers;
}

void StateStreamer::set_order(const std::vector<int>& order) {
  order_.clear();
  std::copy_if(order.begin(), order.end(), std::back_inserter(order_),
               [this](int bucket) { return Has(bucket); });
  next_ = order_.size();
}

StateStreamer::Buffer* StateStreamer::Find(int bucket) {
  const auto found = std::find_if(
      buffers_.begin(), buffers_.end(),
      [bucket](const Buffer& buffer) { return buffer.bucket == bucket; });
  return found == buffers_.end() ? nullptr : &*found;
}

void StateStreamer::StartRead(Buffer& buffer, int bucket) {
  Stream& reads = drive_.stream(StreamKind::kCopyIn);
  buffer.bucket = bucket;
  Event(buffer.last_use).Wait(reads);
  Event(buckets_.at(bucket).written).Wait(reads);
  const Tensor& states = buckets_.at(bucket).states;
  reads_.Time(reads, [&] {
    Transfer(states, buffer.memory.Slice(0, states.num_elements()), reads);
  });
  buffer.arrival = reads.Record();
}

void StateStreamer::ExpectUpdates() {
  const bool idle =
      std::all_of(buffers_.begin(), buffers_.end(),
                  [](const Buffer& buffer) { return buffer.bucket == kNone; });
  // What a step did not use, as it was left out, is still there.
  if (idle) next_ = 0;
  ReadAhead();
}

void StateStreamer::ReadAhead() {
  for (Buffer& buffer : buffers_) {
    if (next_ == order_.size()) return;
    if (buffer.bucket == kNone) StartRead(buffer, order_[next_++]);
  }
}

StateStreamer::Buffer& StateStreamer::Free() {
  Buffer* const free = Find(kNone);
  if (free != nullptr) return *free;
  Buffer& last = buffers_.back();
  last.arrival.Synchronize();
  return last;
}

std::vector<OwnedParameter>& StateStreamer::Bring(int bucket, bool read) {
  Buffer* buffer = Find(bucket);
  if (buffer == nullptr) {
    buffer = &Free();
    if (read) {
      StartRead(*buffer, bucket);
    } else {
      buffer->bucket = bucket;
      Event(buffer->last_use).Synchronize();
    }
  }
  const Bucket& brought = buckets_.at(bucket);
  buffer->parts = *brought.parts;
  const auto start = std::chrono::steady_clock::now();
  buffer->arrival.Synchronize();
  if (brought.values.store != nullptr) {
    brought.values.store->OpenValues(brought.values.bucket, buffer->parts);
  }
  waited_s_ +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  LayOut(buffer->memory, brought.parts->front().ema.defined(), buffer->parts);
  return buffer->parts;
}

void StateStreamer::Return(int bucket, bool states_changed,
                           bool values_changed) {
  Buffer* const buffer = Find(bucket);
  CHECK(buffer != nullptr) << "bucket " << bucket << " was not brought";
  buffer->parts.clear();
  buffer->bucket = kNone;
  Bucket& returned = buckets_.at(bucket);
  if (returned.values.store != nullptr) {
    returned.values.store->CloseValues(returned.values.bucket, values_changed);
  }
  if (states_changed) {
    Stream& writes = drive_.stream(StreamKind::kCopyOut);
    home_.stream().Record().Wait(writes);
    writes_.Time(writes, [&] {
      Transfer(buffer->memory.Slice(0, returned.states.num_elements()),
               returned.states, writes);
    });
    buffer->last_use = writes.Record();
    returned.written = buffer->last_use;
  }
  ReadAhead();
}

void StateStreamer::Settle() {
  drive_.Synchronize();
  for (Buffer& buffer : buffers_) {
    buffer.bucket = kNone;
    buffer.arrival = Event();
    buffer.last_use = Event();
  }
  next_ = order_.size();
}

}  // namespace trireme
