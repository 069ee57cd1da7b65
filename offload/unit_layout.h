// Where the parameters of a unit lie in the flat buffers that hold it at home
// or on the device: one for each type of elements. On the device all of a
// bucket is there, at home what this rank owns of it.

#ifndef TRIREME_OFFLOAD_UNIT_LAYOUT_H_
#define TRIREME_OFFLOAD_UNIT_LAYOUT_H_

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "offload/device_buffers.h"
#include "parallel/sharding/parameter_buckets.h"
#include "runtime/autograd/parameter.h"
#include "runtime/device/tensor.h"

namespace trireme {

struct UnitLayout {
  enum class Where { kDevice, kHome };

  // A bucket of parameters that train: its elements among the values.
  struct Part {
    int bucket = 0;
    int64_t begin = 0;
    int64_t elements = 0;

    Tensor Of(const Tensor& buffer) const {
      return buffer.Slice(begin, begin + elements);
    }
  };
  // One that does not: its elements among the values, or its codes and scales
  // where it is quantised.
  struct Frozen {
    Parameter* parameter = nullptr;
    int64_t begin = 0;
    int64_t scales_begin = 0;
  };

  std::vector<Part> parts;
  std::vector<Frozen> frozen;
  // Elements of what trains, which come first among the values.
  int64_t trained = 0;
  int64_t values = 0;
  int64_t codes = 0;
  int64_t scales = 0;

  // Of values of the dtype, codes, and scales.
  std::vector<DeviceBuffers::Buffer> Buffers(DType dtype) const;
  // How many elements each of them has.
  std::vector<int64_t> Elements() const { return {values, codes, scales}; }
  // Makes each count at least `other`'s.
  void GrowTo(const UnitLayout& other);
};

// Whether a parameter that does not train lies at home with its unit: homes
// have values of one type, which would round counts that another run left.
bool LiesAtHome(const Parameter& frozen, const UnitHome& home);

// Of the units that have a home, by number. `buckets` are the chunk's, whose
// parameters these are.
std::map<int, UnitLayout> LayOutUnits(
    const std::vector<std::unique_ptr<Parameter>>& parameters,
    const ParameterBuckets& buckets, const UnitHome& home,
    UnitLayout::Where where);

}  // namespace trireme

#endif  // TRIREME_OFFLOAD_UNIT_LAYOUT_H_
