// A device: an arena of memory, streams of work, and the kernels that ops run
// on its tensors.
//
// Ops give their work to the current stream, which a StreamScope changes.
// Memory is stream-ordered: a block that the host frees is reused only after
// all work of the stream that was current then. Whoever uses a tensor on other
// streams, too, lets that stream wait for them before it goes.
//
// Dry devices count but hold nothing: `Allocate` returns null and kernels only
// add up what they are asked for, so that running the same code gives the exact
// memory and work of a step for any number of ranks.
//
// Out of memory: the device keeps the first error (arena.h), turns dry, and
// goes on counting. Whoever drives it (the executor) checks status() after each
// instruction and ends the job with the error; nothing crashes in between.
//
// Thread-safe, but for the current stream, which is its driver's: the one
// thread that gives the device work. A Device outlives every Tensor on it.

#ifndef TRIREME_RUNTIME_DEVICE_DEVICE_H_
#define TRIREME_RUNTIME_DEVICE_DEVICE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "runtime/device/arena.h"
#include "runtime/device/memory_source.h"
#include "runtime/device/stream.h"

namespace trireme {

struct Kernels;  // runtime/ops/kernels.h

class Device {
 public:
  static constexpr int64_t kAlignment = Arena::kAlignment;
  using Block = Arena::Block;

  // By StreamKind; several kinds may share a stream.
  using Streams = std::array<std::shared_ptr<Stream>, kNumStreams>;

  // Kernels by the state of the device.
  struct KernelTables {
    const Kernels& real;
    const Kernels& dry;
  };

  // `on_host`: the host may read and write its memory. Without `memory` it is
  // dry for good.
  Device(std::string name, bool on_host, int64_t limit_bytes,
         std::unique_ptr<MemorySource> memory, const KernelTables& kernels,
         Streams streams = OneStream());
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  Block Allocate(int64_t bytes, MemoryCategory category,
                 std::string_view label) {
    return arena_.Allocate(bytes, category, label);
  }
  void Free(const Block& block) { arena_.Free(block); }

  // True where no maths is to be done: a dry device, or one out of memory.
  bool dry() const { return arena_.dry(); }
  // The first out-of-memory error; OK before.
  absl::Status status() const { return arena_.status(); }

  MemoryStatistics Statistics() const { return arena_.Statistics(); }
  // Makes the current figures the peak figures.
  void ResetPeak() { arena_.ResetPeak(); }

  const Kernels& kernels() const {
    return dry() ? kernels_.dry : kernels_.real;
  }

  // The current stream: compute, outside of any StreamScope.
  Stream& stream() { return *current_; }
  Stream& stream(StreamKind kind) { return *streams_[static_cast<int>(kind)]; }
  // Blocks the host until all streams are done.
  void Synchronize() {
    for (const auto& stream : streams_) stream->Synchronize();
  }

  bool on_host() const { return on_host_; }
  // "cpu", "dry cpu".
  const std::string& name() const { return name_; }

 private:
  friend class StreamScope;

  // The host's, which works as it is called.
  static Streams OneStream();

  const std::string name_;
  const bool on_host_;
  const KernelTables kernels_;
  const Streams streams_;
  Stream* current_;
  Arena arena_;
};

// For as long as it lives, the device's current stream is another.
class StreamScope {
 public:
  StreamScope(Device& device, StreamKind kind)
      : device_(device), before_(device.current_) {
    device.current_ = &device.stream(kind);
  }
  ~StreamScope() { device_.current_ = before_; }
  StreamScope(const StreamScope&) = delete;
  StreamScope& operator=(const StreamScope&) = delete;

 private:
  Device& device_;
  Stream* const before_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_DEVICE_H_
