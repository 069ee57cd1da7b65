// What the tests of ops share: random operands and comparison within rounding.

#ifndef TRIREME_RUNTIME_OPS_OPS_TESTING_H_
#define TRIREME_RUNTIME_OPS_OPS_TESTING_H_

#include <cstdint>
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
      : device_(device), dtype_(dtype), rounded_(dtype), shifted_(shifted) {}
  // In fp64, the values that the same operands of type `rounded` have.
  static Operands Rounded(Device& device, DType rounded) {
    Operands operands(device, DType::kFloat64);
    operands.rounded_ = rounded;
    return operands;
  }

  Tensor operator()(const Shape& shape);

  // From now on keeps what it makes, and after Rewind hands it out again, in
  // the same order: for runs of one op many times.
  void Keep() { keep_ = true; }
  void Rewind() { next_ = 0; }

 private:
  Tensor Make(const Shape& shape);

  Device& device_;
  DType dtype_;
  DType rounded_;
  int64_t shifted_;
  std::mt19937 engine_{1};
  bool keep_ = false;
  std::vector<Tensor> kept_;
  size_t next_ = 0;
};

// One normal random tensor.
Tensor RandomTensor(Device& device, const Shape& shape, DType dtype,
                    uint32_t seed);

// The elements of a floating tensor.
std::vector<double> Doubles(const Tensor& x);

// Within `tolerance`, relative to 1 + |expected|.
void ExpectWithin(const Tensor& got, const std::vector<double>& expected,
                  double tolerance, const std::string& what);
// One rounding to the type, with what fp32 and fp64 sums add to it.
double RoundingOf(DType dtype);
// Within `slack` roundings of the element type, relative to 1 + |expected|.
void ExpectNear(const Tensor& got, const std::vector<double>& expected,
                const std::string& what, double slack = 1);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_OPS_TESTING_H_
