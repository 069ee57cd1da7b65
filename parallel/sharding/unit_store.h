// Who sees to it that a unit's parameters have their values on this rank while
// the unit runs, wherever they are in between: the seam for whatever keeps them
// elsewhere (on other ranks, on the host).

#ifndef TRIREME_PARALLEL_SHARDING_UNIT_STORE_H_
#define TRIREME_PARALLEL_SHARDING_UNIT_STORE_H_

#include <functional>
#include <utility>
#include <vector>

#include "runtime/device/tensor.h"

namespace trireme {

struct OwnedParameter;  // parallel/optimizer/owned_parameter.h

// The units are those of one chunk. Whoever runs them calls, for each forward
// and each backward of a unit, Bring before and Drop after, and before a
// backward PrepareGradients; Fetch says which unit it will bring next.
class UnitStore {
 public:
  virtual ~UnitStore() = default;

  // Starts to bring the unit's values, behind what runs meanwhile. Harmless
  // where they are here or on their way.
  virtual void Fetch(int unit) = 0;
  // Returns once the unit's values are there: Parameter::value holds them.
  virtual void Bring(int unit) = 0;
  // The values are not read until the next Bring.
  virtual void Drop(int unit) = 0;

  // The optimizer has updated what this rank owns of the chunk's gradient
  // bucket `bucket`: starts to hand it to whoever else reads it.
  virtual void Publish(int bucket) = 0;

  // Where the values that the optimizer writes are not in memory (but on a
  // drive): points those of the bucket to memory, until CloseValues. What the
  // optimizer reads of them is there. One unit's buckets at a time.
  virtual void OpenValues(int /*bucket*/,
                          std::vector<OwnedParameter>& /*owned*/) {}
  // `changed`: all of them were written.
  virtual void CloseValues(int /*bucket*/, bool /*changed*/) {}

  // Of units that take turns on the device (a Program with offload), when the
  // Program says so. What the current stream was given before is the last to
  // use the unit's values until its next Fetch.
  virtual void Release(int /*unit*/) {}
  // Parameter::grad is there to be added to: what other microbatches have left
  // there in the step, or zero.
  virtual void PrepareGradients(int /*unit*/) {}
  // Starts to take Parameter::grad off the device, after what the current
  // stream has waited for; it is not there any more when this returns.
  virtual void SaveGradients(int /*unit*/) {}

  // Called once: starts to bring tensors back, which are there once the copy-in
  // stream has come so far.
  using BringBack = std::function<std::vector<Tensor>()>;
  // Starts to take tensors off the device that nobody else holds, after what
  // the copy-out stream has waited for. They come back after that.
  virtual BringBack TakeAway(std::vector<Tensor> tensors) {
    return [kept = std::move(tensors)] { return kept; };
  }
};

// All values are on the device from beginning to end.
class AllResident final : public UnitStore {
 public:
  void Fetch(int) override {}
  void Bring(int) override {}
  void Drop(int) override {}
  void Publish(int) override {}
};

// A unit, and who brings it; null: none.
struct StoredUnit {
  UnitStore* store = nullptr;
  int unit = 0;

  friend bool operator==(const StoredUnit&, const StoredUnit&) = default;
};

// A gradient bucket of a chunk, and who keeps the values that its gradients
// change; null: they are where they are used.
struct StoredBucket {
  UnitStore* store = nullptr;
  int bucket = 0;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_SHARDING_UNIT_STORE_H_
