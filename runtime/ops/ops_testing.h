// What the tests of ops share: random operands, comparison within rounding, and
// the properties that every op has.

#ifndef TRIREME_RUNTIME_OPS_OPS_TESTING_H_
#define TRIREME_RUNTIME_OPS_OPS_TESTING_H_

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "runtime/device/tensor.h"

namespace trireme {

// Bytes of a device that no test fills.
constexpr int64_t kPlenty = int64_t{1} << 30;
constexpr DType kFloatingTypes[] = {DType::kFloat32, DType::kBFloat16,
                                    DType::kFloat16, DType::kFloat64};

// Makes normal random tensors, each unlike the one before.
class Operands {
 public:
  // `shifted`: one element off the alignment of the device.
  Operands(Device& device, DType dtype, bool shifted = false)
      : device_(device), dtype_(dtype), shifted_(shifted) {}

  Tensor operator()(const Shape& shape);

 private:
  Device& device_;
  DType dtype_;
  int64_t shifted_;
  std::mt19937 engine_{1};
};

// One normal random tensor.
Tensor RandomTensor(Device& device, const Shape& shape, DType dtype,
                    uint32_t seed);

// The elements of a floating tensor.
std::vector<double> Doubles(const Tensor& x);

// Within `tolerance`, relative to 1 + |expected|.
void ExpectWithin(const Tensor& got, const std::vector<double>& expected,
                  double tolerance, const std::string& what);
// Within `slack` roundings of the element type, relative to 1 + |expected|.
void ExpectNear(const Tensor& got, const std::vector<double>& expected,
                const std::string& what, double slack = 1);

// An op on operands large enough to be worth several threads.
struct OpCase {
  std::string name;
  std::function<std::vector<Tensor>(Operands&)> run;
};

// In every floating type: the same bits on 1, 2 and 3 threads; the same bits
// from operands off their alignment; and the same memory, shapes and types on a
// dry device.
void ExpectResultDoesNotDependOnThreads(const std::vector<OpCase>& cases);
void ExpectOperandsNeedNoAlignment(const std::vector<OpCase>& cases);
void ExpectDryDeviceCountsTheSameMemory(const std::vector<OpCase>& cases);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_OPS_TESTING_H_
