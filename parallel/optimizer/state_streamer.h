// Masters, moments and averages that lie on a device without kernels (a drive)
// and come to memory while the optimizer works on them (ZeRO-Infinity,
// Rajbhandari et al., section 5.2.2): while one bucket is updated, those after
// it are read and the one before it is written. The first are read as soon as
// the updates before are over, behind what the device computes until the next;
// the last are written behind it, too.
//
// Buckets are those of the optimizer, in whatever order it has them. Nothing
// but events orders the copies; the host waits for what it is about to use.

#ifndef TRIREME_PARALLEL_OPTIMIZER_STATE_STREAMER_H_
#define TRIREME_PARALLEL_OPTIMIZER_STATE_STREAMER_H_

#include <cstdint>
#include <map>
#include <vector>

#include "parallel/optimizer/owned_parameter.h"
#include "parallel/sharding/unit_store.h"
#include "runtime/device/event.h"
#include "runtime/device/stream_stopwatch.h"
#include "runtime/device/tensor.h"
#include "scheduler/program/program.h"

namespace trireme {

class StateStreamer {
 public:
  // Buckets that are in memory at once.
  static constexpr int kBuffers = Offload::kStateBuffers;
  // Of elements: where a bucket's tensors begin. Its states are moved in whole
  // transfers of a drive (Extents::kBlockBytes), be it few of them.
  static constexpr int64_t kTensorBytes = 4096;
  static constexpr int64_t kBucketBytes = 256 << 10;

  // Both outlive it. `home`: the host's memory, where values and gradients are.
  StateStreamer(Device& home, Device& drive) : home_(home), drive_(drive) {}
  ~StateStreamer() { Settle(); }
  StateStreamer(const StateStreamer&) = delete;
  StateStreamer& operator=(const StateStreamer&) = delete;

  // Gives each part its tensors on the drive, whose elements are anything: a
  // master where the value is of less precision, moments, and an average if
  // wanted. The parts stay where they are; `values`: who keeps theirs. Before
  // MakeBuffers.
  void Add(int bucket, std::vector<OwnedParameter>& parts, bool average,
           const StoredBucket& values = {});
  // After all: memory for the largest buckets.
  void MakeBuffers();
  // That they made, which stay where they are.
  std::vector<Tensor> buffers() const;
  bool Has(int bucket) const { return buckets_.contains(bucket); }

  // In which a step updates buckets: what is read ahead. Others come in any
  // order, too, and are waited for.
  void set_order(const std::vector<int>& order);
  // One step's updates are over: starts to read the first of the next one's.
  void ExpectUpdates();

  // The bucket's parts with their tensors in memory, until Return. One bucket
  // at a time. Without `read` their elements are anything.
  std::vector<OwnedParameter>& Bring(int bucket, bool read = true);
  // What was changed starts to be written: states, and values that are not in
  // memory either.
  void Return(int bucket, bool states_changed, bool values_changed);

  // Waits until nothing is under way, and forgets what was read ahead: the
  // tensors on the drive may be used now.
  void Settle();

  // What a step in which all buckets are updated writes, and reads.
  int64_t step_bytes() const { return step_bytes_; }
  // For which updates have waited for reads, and the drive was at work on what
  // is over of each.
  double waited_s() const { return waited_s_; }
  double read_s() const { return reads_.seconds(); }
  double write_s() const { return writes_.seconds(); }

 private:
  static constexpr int kNone = -1;

  struct Bucket {
    std::vector<OwnedParameter>* parts = nullptr;
    StoredBucket values;
    Tensor states;  // on the drive: all tensors, one after the other
    Event written;
  };
  struct Buffer {
    Tensor memory;
    int bucket = kNone;  // that it holds or waits for
    Event arrival;
    Event last_use;
    std::vector<OwnedParameter> parts;
  };

  // Points the parts' tensors to slices of `states`, one after the other;
  // returns where they end. Without `states` it only counts.
  static int64_t LayOut(const Tensor& states, bool average,
                        std::vector<OwnedParameter>& parts);
  void StartRead(Buffer& buffer, int bucket);
  // Into what buffers are free.
  void ReadAhead();
  Buffer* Find(int bucket);
  // One that no bucket is in; else one that was read ahead.
  Buffer& Free();

  Device& home_;
  Device& drive_;
  std::map<int, Bucket> buckets_;
  std::vector<Buffer> buffers_;
  std::vector<int> order_;
  size_t next_ = 0;  // in order_: to be read
  int64_t step_bytes_ = 0;
  double waited_s_ = 0;
  StreamStopwatch reads_;
  StreamStopwatch writes_;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_OPTIMIZER_STATE_STREAMER_H_
