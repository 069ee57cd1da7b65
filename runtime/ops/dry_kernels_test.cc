// What a dry device counts against the definitions.

#include "runtime/ops/dry_kernels.h"

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/attention.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/ops_testing.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/quantization.h"

namespace trireme {
namespace {

class DryKernelsTest : public testing::Test {
 protected:
  Tensor Empty(const Shape& shape) {
    return Tensor::Empty(device_, shape, DType::kBFloat16);
  }

  // What `run` adds.
  template <typename F>
  Work WorkOf(F&& run) {
    const Work before = device_.stream().counted();
    run();
    const Work after = device_.stream().counted();
    return {after.product_flops - before.product_flops,
            after.bytes - before.bytes};
  }

  CpuDevice device_{kPlenty, CpuDevice::Mode::kDry};
};

TEST_F(DryKernelsTest, ProductsAreTwoFlopsAMultiplyAdd) {
  const Tensor a = Empty({4, 5, 7}), b = Empty({7, 11});
  const Work work = WorkOf([&] { MatMul(a, b); });
  EXPECT_EQ(work.product_flops, 2 * 4 * 5 * 7 * 11);
  EXPECT_EQ(work.bytes, 2 * (4 * 5 * 7 + 7 * 11 + 4 * 5 * 11));
  const Tensor sum = Tensor::Empty(device_, {7, 11}, DType::kFloat32);
  const Work accumulated = WorkOf([&] {
    MatMulAccumulate(Empty({20, 7}), Empty({20, 11}), {.transpose_a = true},
                     sum);
  });
  EXPECT_EQ(accumulated.product_flops, 2 * 20 * 7 * 11);
  EXPECT_EQ(accumulated.bytes, 2 * (20 * 7 + 20 * 11) + 2 * 4 * 7 * 11);
}

// Weights in few bits are read as such.
TEST_F(DryKernelsTest, ProductsReadCodesAndScales) {
  const QuantizedTensor b = EmptyQuantized(
      device_,
      {.format = WeightFormat::kNormalFloat4, .rows = 11, .columns = 70},
      "weights");
  const Tensor a = Empty({20, 70});
  const Work work =
      WorkOf([&] { MatMul(a, b, nullptr, {.transpose_b = true}); });
  EXPECT_EQ(work.product_flops, 2 * 20 * 70 * 11);
  EXPECT_EQ(work.bytes, 2 * (20 * 70 + 20 * 11) + 11 * (35 + 2 * 4));
}

TEST_F(DryKernelsTest, AttentionIsTwoProductsForwardAndFourBackward) {
  const int64_t batch = 2, tokens = 5, heads = 3, head_dim = 8;
  const Tensor qkv = Empty({batch, tokens, 3 * heads * head_dim});
  const auto part = [&](int64_t i) { return PackedHeads(qkv, 3, i, head_dim); };
  const int64_t product = 2 * batch * heads * tokens * tokens * head_dim;
  AttentionResult result;
  EXPECT_EQ(WorkOf([&] {
              result = AttentionForward(part(0), part(1), part(2), 1);
            }).product_flops,
            2 * product);
  EXPECT_EQ(WorkOf([&] {
              AttentionBackward(part(0), part(1), part(2), result, result.out,
                                1, {}, part(0), part(1), part(2));
            }).product_flops,
            4 * product);
}

// A mask's work is that of the scores which it leaves; keys with fewer heads
// are fewer bytes.
TEST_F(DryKernelsTest, AttentionCountsWhatItsMaskLeaves) {
  const int64_t tokens = 6, heads = 4, head_dim = 8;
  const Tensor qkv = Empty({1, tokens, (heads + 2 * 2) * head_dim});
  const QkvHeads parts = PackedQkv(qkv, head_dim, 2);
  const auto work_of = [&](const AttentionMask& mask) {
    return WorkOf(
        [&] { AttentionForward(parts.q, parts.k, parts.v, 1, mask); });
  };
  const int64_t pair = 2 * 2 * heads * head_dim;
  EXPECT_EQ(work_of({}).product_flops, 36 * pair);
  EXPECT_EQ(work_of({.diagonal = 0}).product_flops, 21 * pair);
  const SequenceOffsets offsets =
      std::make_shared<std::vector<int64_t>>(std::vector<int64_t>{0, 2, 6});
  const AttentionMask sequences{.query_offsets = offsets,
                                .key_offsets = offsets};
  EXPECT_EQ(work_of(sequences).product_flops, (4 + 16) * pair);
  EXPECT_EQ(work_of({}).bytes, 2 * tokens * head_dim * (heads + 2 * 2 + heads));
}

TEST_F(DryKernelsTest, PointwiseOpsMoveBytesOnly) {
  const Tensor x = Empty({3, 10});
  const Work work = WorkOf([&] { Add(x, x); });
  EXPECT_EQ(work.product_flops, 0);
  EXPECT_EQ(work.bytes, 3 * 30 * 2);
}

TEST_F(DryKernelsTest, RealDevicesCountNothing) {
  CpuDevice real(kPlenty);
  const Tensor x = Tensor::Zeros(real, {3, 10}, DType::kFloat32);
  MatMul(x, x, nullptr, {.transpose_b = true});
  EXPECT_EQ(real.stream().counted().product_flops, 0);
  EXPECT_EQ(real.stream().counted().bytes, 0);
}

}  // namespace
}  // namespace trireme
