// Units whose parameters lie at home, in the host's memory, and are on the
// device only while it computes with them (Superpipeline; ZeRO-Infinity,
// Rajbhandari et al., section 5). Which are there when is the Program's to say
// (scheduler/program/offload_pass.h).
//
//   Fetch            values to a place on the device, on the copy-in stream;
//                    where data-parallel ranks share them, each brings its own
//                    and all gather them there
//   Bring            the current stream waits for them
//   Release          frees the place after what the current stream was given;
//                    values change while they are at home alone and are never
//                    copied back
//   PrepareGradients a buffer on the device, zero or, where other microbatches
//                    have left something in the step, that, if it is not there,
//                    on copy-in: sums then have the bits that they have on the
//                    device
//   SaveGradients    the buffer to the reducer's accumulators at home, on
//                    copy-out, after what is to be summed over ranks was
//   TakeAway         tensors to a buffer at home, on copy-out, and back to new
//                    memory, on copy-in
//
// Nothing but events orders the copies; the host waits for none of them.
// Units of a rank whose host has too little memory lie on a drive instead, and
// pass through a window of the host's memory (unit_window.h): a Fetch copies
// from there, and updates write there.
//
// Where a plan shards over data-parallel ranks, home has this rank's shards and
// no more, of values always, and of gradients as the plan says: a link carries
// a shard, and whole values and sums are made on the device.
//
// Parameters of units without a home (embedding, head) stay on the device, and
// so do counts (Parameter::replaced_by_gradient), which the places' type would
// round, and all that trains where its home is there (UnitHome::trained): then
// nothing leaves. They are ParameterShards'.

#ifndef TRIREME_OFFLOAD_OFFLOADED_UNITS_H_
#define TRIREME_OFFLOAD_OFFLOADED_UNITS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "offload/device_buffers.h"
#include "offload/host_buffers.h"
#include "offload/unit_layout.h"
#include "offload/unit_window.h"
#include "parallel/grid/context.h"
#include "parallel/sharding/gradient_reducer.h"
#include "parallel/sharding/parameter_buckets.h"
#include "parallel/sharding/parameter_shards.h"
#include "parallel/sharding/unit_store.h"
#include "runtime/device/stream_stopwatch.h"

namespace trireme {

// What crossed between home and device while a step computed.
struct CopiedBytes {
  int64_t to_device = 0;
  int64_t to_home = 0;
};

// Seconds, of what is over: the host asks for none of it.
struct CopyTimes {
  // For which each direction of the link was at work.
  double to_device = 0;
  double to_home = 0;
  // For which computation waited for what came, and for the buffer of
  // gradients that were leaving. Where the device has no streams beside the
  // host it waits for all of both.
  double waited_for_arrivals = 0;
  double waited_for_departures = 0;
  // For which copies to the device waited for a drive, and computation with
  // them where nothing hid it.
  double waited_for_drive = 0;

  CopyTimes& operator+=(const CopyTimes& other) {
    to_device += other.to_device;
    to_home += other.to_home;
    waited_for_arrivals += other.waited_for_arrivals;
    waited_for_departures += other.waited_for_departures;
    waited_for_drive += other.waited_for_drive;
    return *this;
  }
};

class OffloadedUnits final : public UnitStore {
 public:
  // What the units of a chunk share with the rank's other chunks.
  struct Buffers {
    DeviceBuffers& places;  // of UnitLayout::Buffers
    // One of UnitLayout::trained elements, and one of those at home where only
    // shards of gradients are kept.
    DeviceBuffers& gradients;
    HostBuffers& inputs;           // of what is taken away
    UnitWindow* window = nullptr;  // null: units lie in the host's memory
  };

  // Makes the initial values, of `seed`: the parameters, of which `buckets`
  // has those that train, must have none. All outlive the result.
  OffloadedUnits(ParallelContext& context,
                 const std::vector<std::unique_ptr<Parameter>>& parameters,
                 const UnitHome& home, const ParameterBuckets& buckets,
                 GradientReducer& reducer, const Buffers& buffers,
                 uint64_t seed);
  // Waits for copies under way.
  ~OffloadedUnits() override;

  // The values of the bucket's parameter i that the optimizer writes: at home
  // where it has one; flat where ranks share the bucket, else in the
  // parameter's shape. On a drive OpenValues brings them to memory.
  Tensor OwnedValue(int bucket, int i) const;
  // A parameter that does not train, with its values at home if it has one: on
  // a drive once its window has settled.
  Parameter AtHome(const Parameter& frozen) const;
  // The same, in memory: until another unit is used, where they lie on a drive.
  // `writes`: the caller is to write them.
  Parameter InMemory(const Parameter& frozen, bool writes = false);
  // The unit's number in the window; -1 where it is in none.
  int WindowUnit(int unit) const;
  // Of the home, what copies read and write: values, but for those on a drive,
  // and gradients.
  std::vector<Tensor> copied_memory() const;
  const CopiedBytes& copied() const { return copied_; }
  CopyTimes copy_times() const;

  void Fetch(int unit) override;
  void Bring(int unit) override;
  void Drop(int unit) override { stays_.Drop(unit); }
  // Of what stays on the device. Whoever changes others' values does it while
  // none are there.
  void Publish(int bucket) override { stays_.Publish(bucket); }
  void OpenValues(int bucket, std::vector<OwnedParameter>& owned) override;
  void CloseValues(int bucket, bool changed) override;
  void Release(int unit) override;
  void PrepareGradients(int unit) override;
  void SaveGradients(int unit) override;
  BringBack TakeAway(std::vector<Tensor> tensors) override;

 private:
  struct Unit {
    UnitLayout layout;  // on the device
    UnitLayout at_home;
    // Buffers of the latter: in memory, or on the drive.
    std::vector<Tensor> home;
    int in_window = -1;
    // Of the parts of which this rank owns any: how many there are, and how
    // many were written since all were last.
    int owned_parts = 0;
    int changed_parts = 0;
    // On the device, while they are there.
    std::vector<Tensor> place;
    Event arrival;
    // Of what ranks share.
    std::vector<Event> gathers;
    std::vector<Tensor> gradients;
    Event saved;
  };

  // Makes the unit's home, with initial values.
  void MakeHome(int number, Unit& unit, Device& device, uint64_t seed);
  void MakeInitialValues(const UnitLayout& layout,
                         const std::vector<Tensor>& home, uint64_t seed) const;
  // Null where the unit's parameters stay on the device.
  Unit* Find(int unit);
  // At home.
  const UnitLayout::Part& PartOf(const Unit& unit, int bucket) const;
  // What this rank owns of the bucket's parameter i, of the bucket's elements
  // at home.
  Tensor OwnedOf(const ParameterBucket& bucket, const Tensor& at_home,
                 int i) const;
  // What this rank has of the unit, to its place.
  void CopyIn(Unit& unit, const std::vector<Tensor>& home, Stream& copy_in);
  // Has the compute stream wait for what other ranks own.
  void AwaitGathers(Unit& unit);
  // Points a parameter that does not train to its values in a set of buffers.
  static void Point(const UnitLayout::Frozen& frozen,
                    const std::vector<Tensor>& buffers, Parameter& parameter);
  // Has the compute stream wait.
  void AwaitArrival(Event arrival);

  ParallelContext& context_;
  const ParameterBuckets& buckets_;
  GradientReducer& reducer_;
  const Buffers buffers_;
  ParameterShards stays_;
  std::map<int, Unit> units_;
  CopiedBytes copied_;
  // Of the copy streams, and of the compute stream while it waits.
  StreamStopwatch copies_in_;
  StreamStopwatch copies_out_;
  StreamStopwatch waits_for_arrivals_;
  StreamStopwatch waits_for_departures_;
};

}  // namespace trireme

#endif  // TRIREME_OFFLOAD_OFFLOADED_UNITS_H_
