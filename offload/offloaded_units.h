// Units whose parameters lie at home, in the host's memory, and are on the
// device only while it computes with them (Superpipeline; ZeRO-Infinity,
// Rajbhandari et al., section 5). Which are there when is the Program's to say
// (scheduler/program/offload_pass.h).
//
//   Fetch            values to a place on the device, on the copy-in stream
//   Bring            the current stream waits for them
//   Release          frees the place after what the current stream was given;
//                    values do not change within a step and are never copied
//                    back
//   PrepareGradients a buffer on the device, zero or, where other microbatches
//                    have left something in the step, that, on copy-in: sums
//                    then have the bits that they have on the device
//   SaveGradients    the buffer to the reducer's accumulators at home, on
//                    copy-out
//
// Nothing but events orders the copies; the host waits for none of them.
// Parameters of units without a home (embedding, head) stay on the device.

#ifndef TRIREME_OFFLOAD_OFFLOADED_UNITS_H_
#define TRIREME_OFFLOAD_OFFLOADED_UNITS_H_

#include <cstdint>
#include <map>
#include <vector>

#include "offload/device_buffers.h"
#include "parallel/context.h"
#include "parallel/gradient_reducer.h"
#include "parallel/parameter_buckets.h"
#include "parallel/unit_store.h"

namespace trireme {

// The elements of the largest unit that has another home than `device`.
int64_t LargestUnit(const ParameterBuckets& buckets, const Device& device);

class OffloadedUnits final : public UnitStore {
 public:
  // Makes the initial values, of `seed`: parameters must have none, and the
  // reducer sums in order. The chunks of a rank share `places` and
  // `gradient_buffers`, each of LargestUnit elements. All outlive the result.
  OffloadedUnits(ParallelContext& context, const ParameterBuckets& buckets,
                 const GradientReducer& reducer, DeviceBuffers& places,
                 DeviceBuffers& gradient_buffers, uint64_t seed);
  // Waits for copies under way.
  ~OffloadedUnits() override;

  // The values of the bucket's parameter i that the optimizer writes, in the
  // parameter's shape: at home where it has one.
  Tensor OwnedValue(int bucket, int i) const;

  void Fetch(int unit) override;
  void Bring(int unit) override;
  void Drop(int /*unit*/) override {}
  // Copies the values to the device again, if they are there.
  void Publish(int bucket) override;
  void Release(int unit) override;
  void PrepareGradients(int unit) override;
  void SaveGradients(int unit) override;

 private:
  // A bucket's elements among its unit's.
  struct Part {
    int bucket = 0;
    int64_t begin = 0;
  };
  struct Unit {
    std::vector<Part> parts;
    int64_t elements = 0;
    Tensor home;
    // On the device, while they are there.
    Tensor place;
    Event arrival;
    Tensor gradients;
    Event saved;
  };

  // Null where the unit's parameters stay on the device.
  Unit* Find(int unit);
  const Part& PartOf(const Unit& unit, int bucket) const;
  // The part's elements in a buffer of the unit's.
  Tensor SliceOf(const Part& part, const Tensor& buffer) const;

  ParallelContext& context_;
  const ParameterBuckets& buckets_;
  const GradientReducer& reducer_;
  DeviceBuffers& places_;
  DeviceBuffers& gradient_buffers_;
  std::map<int, Unit> units_;
};

}  // namespace trireme

#endif  // TRIREME_OFFLOAD_OFFLOADED_UNITS_H_
