// Rounding of results to bf16: a processor with AVX-512 may round by
// instructions of its own, others by shifts and masks; models trained on either
// must agree.

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/tensor.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

BFloat16 FromBits(uint32_t bits) {
  BFloat16 value;
  value.bits = static_cast<uint16_t>(bits);
  return value;
}

// Every value plus one of similar size, so that sums have to be rounded: up,
// down and on ties, to zero, infinity and NaN.
TEST(BFloat16Rounding, SumsAreRoundedToNearestEvenWhereverTheyStand) {
  CpuDevice device(int64_t{1} << 30);
  std::vector<BFloat16> a, b;
  for (uint32_t bits = 0; bits < (1u << 16); ++bits) {
    for (const uint32_t other : {bits ^ 0x0080u, bits ^ 0x01ffu, bits - 0x3b1u,
                                 bits ^ 0x8001u, bits}) {
      a.push_back(FromBits(bits));
      b.push_back(FromBits(other));
    }
  }
  // Leaving out the first elements moves the others to other lanes, and into
  // and out of the tail.
  for (const int64_t skipped : {0, 1, 5, 17}) {
    const auto tensor = [&](const std::vector<BFloat16>& values) {
      return Tensor::FromValues<BFloat16>(
          device, {static_cast<int64_t>(values.size()) - skipped},
          std::vector<BFloat16>(values.begin() + skipped, values.end()));
    };
    const Tensor sums = Add(tensor(a), tensor(b));
    for (int64_t i = 0; i < sums.num_elements(); ++i) {
      const float exact = static_cast<float>(a[i + skipped]) +
                          static_cast<float>(b[i + skipped]);
      const BFloat16 expected(exact);
      const BFloat16 found = sums.data<BFloat16>()[i];
      if (std::isnan(exact)) {
        ASSERT_TRUE(std::isnan(static_cast<float>(found))) << i;
      } else if (std::abs(exact) < std::numeric_limits<float>::min()) {
        // The instructions take these for zero.
        ASSERT_TRUE(found.bits == expected.bits ||
                    static_cast<float>(found) == 0)
            << exact;
      } else {
        ASSERT_EQ(found.bits, expected.bits) << exact << " at " << i;
      }
    }
  }
}

}  // namespace
}  // namespace trireme
