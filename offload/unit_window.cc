#include "offload/unit_window.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <utility>

#include "runtime/core/log.h"
#include "runtime/device/nvme/aligned.h"
#include "runtime/device/nvme/extents.h"
#include "runtime/ops/transfer.h"

namespace trireme {
namespace {

// In whole blocks of a drive, which are moved where they lie.
int64_t WholeBlocks(const DeviceBuffers::Buffer& buffer) {
  const int64_t size = DTypeSize(buffer.dtype);
  return Extents::WholeBlocks(buffer.elements * size) / size;
}

}  // namespace

UnitWindow::UnitWindow(Device& host, Device& drive, int count,
                       std::vector<DeviceBuffers::Buffer> largest)
    : host_(host), drive_(drive) {
  for (int i = 0; i < count; ++i) {
    Buffer& buffer = buffers_.emplace_back();
    for (const DeviceBuffers::Buffer& of_set : largest) {
      buffer.memory.push_back(
          of_set.elements == 0
              ? Tensor()
              : EmptyAligned(host, WholeBlocks(of_set), of_set.dtype,
                             MemoryCategory::kParameters,
                             "a block's parameters on their way from and to "
                             "the drive"));
    }
  }
}

std::vector<Tensor> UnitWindow::memory() const {
  std::vector<Tensor> memory;
  for (const Buffer& buffer : buffers_) {
    std::copy_if(buffer.memory.begin(), buffer.memory.end(),
                 std::back_inserter(memory),
                 [](const Tensor& tensor) { return tensor.defined(); });
  }
  return memory;
}

int UnitWindow::Add(const std::vector<DeviceBuffers::Buffer>& set,
                    bool updates_read, const std::string& label) {
  Unit& unit = units_.emplace_back();
  unit.updates_read = updates_read;
  for (const DeviceBuffers::Buffer& of_set : set) {
    unit.stored.push_back(
        of_set.elements == 0
            ? Tensor()
            : Tensor::Empty(drive_, {WholeBlocks(of_set)}, of_set.dtype,
                            MemoryCategory::kParameters, label));
  }
  return static_cast<int>(units_.size()) - 1;
}

void UnitWindow::set_order(std::vector<int> order) {
  order_ = std::move(order);
  next_ = 0;
  for (Unit& unit : units_) unit.uses.clear();
  for (size_t i = 0; i < order_.size(); ++i) {
    units_[order_[i]].uses.push_back(static_cast<int>(i));
  }
}

UnitWindow::Buffer* UnitWindow::Find(int unit) {
  const auto found = std::find_if(
      buffers_.begin(), buffers_.end(),
      [unit](const Buffer& buffer) { return buffer.unit == unit; });
  return found == buffers_.end() ? nullptr : &*found;
}

int64_t UnitWindow::Distance(int unit, int64_t from) const {
  constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  if (unit == kNone) return kNever;
  const std::vector<int>& uses = units_[unit].uses;
  if (uses.empty()) return kNever - 1;
  const auto steps = static_cast<int64_t>(order_.size());
  const int64_t at = (next_ + from) % steps;
  const auto use = std::lower_bound(uses.begin(), uses.end(), at);
  return from + (use != uses.end() ? *use - at : uses.front() + steps - at);
}

UnitWindow::Buffer& UnitWindow::Furthest() {
  return *std::max_element(buffers_.begin(), buffers_.end(),
                           [this](const Buffer& a, const Buffer& b) {
                             // One that is being changed is everybody's last
                             // choice.
                             const auto rank = [this](const Buffer& buffer) {
                               return std::pair(!buffer.partial,
                                                Distance(buffer.unit, 0));
                             };
                             return rank(a) < rank(b);
                           });
}

void UnitWindow::Assign(Buffer& buffer, int unit) {
  CHECK(!buffer.partial) << "a unit is changed in part";
  if (buffer.dirty) Write(buffer);
  buffer.unit = unit;
  buffer.tensors.clear();
  for (size_t i = 0; i < buffer.memory.size(); ++i) {
    const Tensor& stored = units_[unit].stored[i];
    buffer.tensors.push_back(
        stored.defined() ? buffer.memory[i].Slice(0, stored.num_elements())
                         : Tensor());
  }
}

void UnitWindow::Read(Buffer& buffer) {
  Stream& reads = drive_.stream(StreamKind::kCopyIn);
  const Unit& unit = units_[buffer.unit];
  Event(buffer.last_copy).Wait(reads);
  Event(buffer.last_write).Wait(reads);
  Event(unit.last_write).Wait(reads);
  reads_.Time(reads, [&] {
    for (size_t i = 0; i < unit.stored.size(); ++i) {
      if (!unit.stored[i].defined()) continue;
      Transfer(unit.stored[i], buffer.tensors[i], reads);
      moved_.read += unit.stored[i].bytes();
    }
  });
  buffer.arrival = reads.Record();
}

void UnitWindow::Write(Buffer& buffer) {
  Stream& writes = drive_.stream(StreamKind::kCopyOut);
  Unit& unit = units_[buffer.unit];
  host_.stream().Record().Wait(writes);
  writes_.Time(writes, [&] {
    for (size_t i = 0; i < unit.stored.size(); ++i) {
      if (!unit.stored[i].defined()) continue;
      Transfer(buffer.tensors[i], unit.stored[i], writes);
      moved_.written += unit.stored[i].bytes();
    }
  });
  buffer.last_write = writes.Record();
  buffer.dirty = false;
  unit.last_write = buffer.last_write;
  unit.written = true;
}

void UnitWindow::ReadAhead() {
  const auto steps = static_cast<int64_t>(order_.size());
  // What buffers will hold then, and whose uses come before.
  std::vector<int> held;
  for (const Buffer& buffer : buffers_) {
    if (buffer.partial) return;
    held.push_back(buffer.unit);
  }
  std::vector<int> before;
  for (int64_t i = 0; i < steps && before.size() < buffers_.size(); ++i) {
    const int number = order_[(next_ + i) % steps];
    if (std::find(before.begin(), before.end(), number) != before.end()) {
      continue;
    }
    before.push_back(number);
    if (std::find(held.begin(), held.end(), number) != held.end()) continue;
    const auto gives_way = std::max_element(
        held.begin(), held.end(),
        [&](int a, int b) { return Distance(a, i) < Distance(b, i); });
    // Else it is still to be used: to read now would cost another read.
    if (Distance(*gives_way, 0) < i) return;
    const Unit& unit = units_[number];
    // What an update makes before it is used needs a buffer, and no read.
    const bool made = unit.expects_update && !unit.updates_read &&
                      (next_ + i) % steps == unit.uses.front();
    if (!made && unit.written) {
      Buffer& buffer = *Find(*gives_way);
      Assign(buffer, number);
      Read(buffer);
    }
    *gives_way = number;
  }
}

const std::vector<Tensor>& UnitWindow::Take(int unit, Stream& stream) {
  const int64_t distance = Distance(unit, 0);
  if (!units_[unit].uses.empty()) {
    next_ = (next_ + distance) % static_cast<int64_t>(order_.size());
    // What was to be updated before its first use was, or is left as it is.
    if (next_ == units_[unit].uses.front()) {
      units_[unit].expects_update = false;
    }
  }
  Buffer* buffer = Find(unit);
  if (buffer == nullptr) {
    CHECK(units_[unit].written) << "unit " << unit << " was never written";
    buffer = &Furthest();
    Assign(*buffer, unit);
    Read(*buffer);
  }
  CHECK(!buffer->partial) << "unit " << unit << " is changed in part";
  waits_.Time(stream, [&] { Event(buffer->arrival).Wait(stream); });
  return buffer->tensors;
}

void UnitWindow::TookUntil(int unit, Event last_copy) {
  Buffer* const buffer = Find(unit);
  CHECK(buffer != nullptr) << "unit " << unit << " was not taken";
  buffer->last_copy = std::move(last_copy);
  if (order_.empty()) return;
  next_ = (next_ + 1) % static_cast<int64_t>(order_.size());
  ReadAhead();
}

const std::vector<Tensor>& UnitWindow::Open(int number, bool read) {
  Unit& unit = units_[number];
  Buffer* buffer = Find(number);
  bool fresh = false;
  if (buffer == nullptr) {
    buffer = &Furthest();
    Assign(*buffer, number);
    if (unit.written && (read || unit.updates_read)) {
      Read(*buffer);
    } else {
      buffer->partial = true;
      fresh = !unit.written;
    }
  }
  buffer->arrival.Synchronize();
  buffer->last_copy.Synchronize();
  buffer->last_write.Synchronize();
  if (fresh) {
    // What lies between its parameters is zero.
    for (const Tensor& tensor : buffer->tensors) {
      if (tensor.defined()) tensor.FillZero();
    }
  }
  return buffer->tensors;
}

void UnitWindow::Changed(int number, bool now) {
  Buffer* const buffer = Find(number);
  CHECK(buffer != nullptr) << "unit " << number << " was not opened";
  buffer->partial = false;
  buffer->dirty = true;
  units_[number].expects_update = false;
  if (now) Write(*buffer);
}

void UnitWindow::Unchanged(int number) {
  Buffer* const buffer = Find(number);
  if (buffer == nullptr || !buffer->partial) return;
  buffer->partial = false;
  buffer->unit = kNone;
}

void UnitWindow::Settle() {
  for (Buffer& buffer : buffers_) {
    if (buffer.dirty) Write(buffer);
  }
  drive_.Synchronize();
  for (Buffer& buffer : buffers_) {
    CHECK(!buffer.partial) << "a unit is changed in part";
    buffer.unit = kNone;
    buffer.arrival = Event();
    buffer.last_copy = Event();
    buffer.last_write = Event();
  }
  for (Unit& unit : units_) unit.last_write = Event();
  next_ = 0;
}

}  // namespace trireme
