// Every op on the kernels of GPUs: near what fp64 gives, whatever the order in
// which threads and streams go, and where the host's bits are promised, those.

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/cuda/gpus.h"
#include "runtime/device/cuda/orders_testing.h"
#include "runtime/ops/adamw.h"
#include "runtime/ops/attention.h"
#include "runtime/ops/convolution.h"
#include "runtime/ops/cuda/cudnn_graph.h"
#include "runtime/ops/kernels.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/op_cases_testing.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/random.h"
#include "runtime/ops/sparse_attention.h"
#include "runtime/ops/spatial_blocks.h"

namespace trireme {
namespace {

using Values = std::vector<std::vector<double>>;

// What is not written yet, and what is freed, is NaN.
std::unique_ptr<Device> Gpu(const KernelLibraries& libraries = kOwnKernels) {
  return MakeCudaDevice(0, kPlenty, CudaDevice::Memory::kPoisoned, libraries);
}

// What a table lacks is a null pointer that the first model to need it calls.
TEST(CudaKernelsTest, HaveAllThatTheHostsHave) {
  using Pointers =
      std::array<std::uintptr_t, sizeof(Kernels) / sizeof(std::uintptr_t)>;
  const CpuDevice host(kPlenty);
  Kernels of_host = host.kernels();
  // Products by codes are of their values here.
  of_host.grouped_gemm.multiplies_codes = nullptr;
  const auto expected = std::bit_cast<Pointers>(of_host);
  for (const KernelLibraries& libraries : {kOwnKernels, KernelLibraries()}) {
    const std::unique_ptr<Device> gpu = Gpu(libraries);
    const auto found = std::bit_cast<Pointers>(gpu->kernels());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_TRUE(expected[i] == 0 || found[i] != 0) << "pointer " << i;
    }
  }
}

class CudaOpTest : public testing::TestWithParam<std::tuple<OpCase, DType>> {
 protected:
  const OpCase& op() const { return std::get<0>(GetParam()); }
  DType dtype() const { return std::get<1>(GetParam()); }
  Values Run(bool shifted) {
    const std::unique_ptr<Device> gpu = Gpu();
    Operands operands(*gpu, dtype(), shifted);
    return ValuesOf(op().run(operands));
  }
};

TEST_P(CudaOpTest, IsNearWhatFp64Gives) {
  UseOrder(kLazyOrder);
  const std::unique_ptr<Device> gpu = Gpu();
  ExpectNearFp64(op(), dtype(), *gpu);
}

TEST_P(CudaOpTest, NeitherOrderNorAlignmentChangesABit) {
  UseOrder(kLazyOrder);
  const Values lazy = Run(/*shifted=*/false);
  UseOrder(3);
  EXPECT_TRUE(Run(/*shifted=*/true) == lazy);
}

std::string CaseName(
    const testing::TestParamInfo<std::tuple<OpCase, DType>>& info) {
  return NameOf(std::get<0>(info.param), std::get<1>(info.param));
}

INSTANTIATE_TEST_SUITE_P(Every, CudaOpTest,
                         testing::Combine(testing::ValuesIn(EveryOp()),
                                          testing::ValuesIn(kFloatingTypes)),
                         CaseName);

// What `run` gives on the host and on the GPU.
template <typename F>
void ExpectTheHostsBits(F run) {
  CpuDevice host(kPlenty);
  const std::unique_ptr<Device> gpu = Gpu();
  const Values expected = ValuesOf(run(host));
  const Values got = ValuesOf(run(*gpu));
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_TRUE(got[i] == expected[i]) << "output " << i;
  }
}

class CudaBitsTest : public testing::TestWithParam<DType> {};

TEST_P(CudaBitsTest, AdamWAndTheAverageAreTheHosts) {
  ExpectTheHostsBits([&](Device& device) -> std::vector<Tensor> {
    const Shape shape = {1003};
    const DType compute = ComputeDType(GetParam());
    const auto operand = [&](uint32_t seed) {
      return RandomTensor(device, shape, compute, seed);
    };
    const Tensor master = operand(1), m = operand(2);
    const Tensor v = Multiply(operand(3), operand(3));
    const Tensor value = Tensor::Empty(device, shape, GetParam());
    const Tensor average = operand(4), with_step = operand(6);
    AdamWStep({.learning_rate = 1e-3,
               .weight_decay = 0.1,
               .step = 7,
               .gradient_scale = 0.37,
               .ema_decay = 0.8},
              operand(5), master, m, v, value, with_step);
    EmaStep(0.9, master, average);
    return {master, m, v, value, average, with_step};
  });
}

TEST_P(CudaBitsTest, RandomNumbersAreTheHosts) {
  ExpectTheHostsBits([&](Device& device) -> std::vector<Tensor> {
    const Tensor x = Tensor::Empty(device, {9005}, GetParam());
    FillRandom(RandomStream({.seed = 1}), Distribution::kNormal, 1,
               {{{5, 0, 3}, {21, 3, 1}, {1002, 4, 9001}}}, x);
    return {x};
  });
}

INSTANTIATE_TEST_SUITE_P(Types, CudaBitsTest, testing::ValuesIn(kFloatingTypes),
                         [](const testing::TestParamInfo<DType>& info) {
                           return std::string(DTypeName(info.param));
                         });

// Which keys a query sees, as the host sees them.
struct MaskCase {
  std::string name;
  bool key_counts = false;
  bool causal = false;
  bool packed = false;
  int64_t channels = 24;  // of a head
};

class CudaAttentionTest
    : public testing::TestWithParam<std::tuple<MaskCase, DType>> {};

// Both passes on a device, whose heads of keys are `key_heads` for 4 of
// queries.
Values Attend(const MaskCase& mask_case, int64_t key_heads, DType dtype,
              Device& device) {
  const int64_t channels = mask_case.channels;
  AttentionMask mask;
  if (mask_case.key_counts) {
    mask.key_counts = Tensor::FromValues<int32_t>(
        device, {3}, std::vector<int32_t>{90, 0, 37});
  }
  if (mask_case.causal) mask.diagonal = 5;
  if (mask_case.packed) {
    using Offsets = const std::vector<int64_t>;
    mask.query_offsets = std::make_shared<Offsets>(Offsets{0, 10, 10, 45, 70});
    mask.key_offsets = std::make_shared<Offsets>(Offsets{0, 33, 40, 40, 90});
  }
  const auto heads = [&](const Tensor& x) {
    HeadsView view;
    view.tensor = x;
    view.row_stride = x.dim(2);
    view.batch = x.dim(0);
    view.tokens = x.dim(1);
    view.heads = x.dim(2) / channels;
    view.head_dim = channels;
    return view;
  };
  const auto operand = [&](int64_t tokens, int64_t of_heads, uint32_t seed) {
    return RandomTensor(device, {3, tokens, of_heads * channels}, dtype, seed);
  };
  const Tensor q = operand(70, 4, 1), k = operand(90, key_heads, 2);
  const Tensor v = operand(90, key_heads, 3), slope = operand(70, 4, 4);
  const auto partial = AttentionForward(heads(q), heads(k), heads(v), 0.2, mask,
                                        AttentionOutput::kUnrounded);
  const auto whole = AttentionForward(heads(q), heads(k), heads(v), 0.2, mask,
                                      AttentionOutput::kRounded);
  const Tensor dq = Tensor::EmptyLike(q), dk = Tensor::EmptyLike(k);
  const Tensor dv = Tensor::EmptyLike(v);
  AttentionBackward(heads(q), heads(k), heads(v), whole, slope, 0.2, mask,
                    heads(dq), heads(dk), heads(dv));
  return ValuesOf({partial.out, partial.log_sum_exp, whole.out,
                   whole.log_sum_exp, dq, dk, dv});
}

void ExpectNearHosts(const Values& got, const Values& expected, DType dtype,
                     double roundings = 6) {
  for (size_t i = 0; i < got.size(); ++i) {
    for (size_t j = 0; j < got[i].size(); ++j) {
      // Of no key the logarithm is -inf on both.
      if (got[i][j] == expected[i][j]) continue;
      ASSERT_NEAR(
          got[i][j], expected[i][j],
          roundings * RoundingOf(dtype) * (1 + std::abs(expected[i][j])))
          << "output " << i << " element " << j;
    }
  }
}

TEST_P(CudaAttentionTest, SeesTheKeysThatTheHostSees) {
  const auto& [mask_case, dtype] = GetParam();
  CpuDevice host(kPlenty);
  const std::unique_ptr<Device> gpu = Gpu();
  ExpectNearHosts(Attend(mask_case, 2, dtype, *gpu),
                  Attend(mask_case, 2, dtype, host), dtype);
}

// Products of fp32 in TF32 are of operands with 10 bits of mantissa; of other
// types they are what they were.
TEST(CudaTf32Test, RoundsTheOperandsOfFp32Alone) {
  const auto run = [](Device& device, DType dtype) {
    Operands in(device, dtype);
    return ValuesOf({MatMul(in({40, 64}), in({64, 48}))});
  };
  KernelLibraries libraries = kOwnKernels;
  libraries.tf32 = true;
  const std::unique_ptr<Device> exact = Gpu(), rounds = Gpu(libraries);
  CpuDevice host(kPlenty);
  const Values of_host = run(host, DType::kFloat32);
  const Values rounded = run(*rounds, DType::kFloat32);
  double worst = 0;
  for (size_t i = 0; i < rounded[0].size(); ++i) {
    worst = std::max(worst, std::abs(rounded[0][i] - of_host[0][i]));
  }
  // Sums of 64 products of unit size, whose operands are within 2^-11.
  EXPECT_GT(worst, 1e-4);
  EXPECT_LT(worst, 0.05);
  for (const DType dtype :
       {DType::kBFloat16, DType::kFloat16, DType::kFloat64}) {
    EXPECT_TRUE(run(*rounds, dtype) == run(*exact, dtype)) << dtype;
  }
}

// What cuDNN computes, and what it leaves to our kernels: masks, and channels
// that are no multiple of 16 bytes.
TEST(CudnnAttentionTest, IsTheHostsAttention) {
  if (const absl::Status found = FindCudnn(); !found.ok()) {
    GTEST_SKIP() << found.message();
  }
  CpuDevice host(kPlenty);
  const std::unique_ptr<Device> own = Gpu();
  const std::unique_ptr<Device> gpu = Gpu(KernelLibraries());
  const MaskCase none = {.channels = 24};
  for (const auto& [dtype, key_heads] :
       {std::pair(DType::kBFloat16, 2), std::pair(DType::kFloat16, 4)}) {
    const Values got = Attend(none, key_heads, dtype, *gpu);
    ExpectNearHosts(got, Attend(none, key_heads, dtype, host), dtype);
    // Other kernels round otherwise.
    const Values of_own = Attend(none, key_heads, dtype, *own);
    EXPECT_FALSE(got[2] == of_own[2] && got[3] == of_own[3]) << "forward";
    EXPECT_FALSE(got[5] == of_own[5]) << "backward";
  }
  for (const MaskCase& left :
       {MaskCase{.key_counts = true}, MaskCase{.channels = 28}}) {
    EXPECT_TRUE(Attend(left, 2, DType::kBFloat16, *gpu) ==
                Attend(left, 2, DType::kBFloat16, *own));
  }
}

// What cuDNN computes, and what it leaves to our kernels: fp64, and operands
// that begin between multiples of 16 bytes.
TEST(CudnnConvolutionTest, IsTheHostsConvolution) {
  if (const absl::Status found = FindCudnn(); !found.ok()) {
    GTEST_SKIP() << found.message();
  }
  const auto run = [](Device& device, DType dtype, bool shifted) {
    Operands in(device, dtype, shifted);
    const Tensor x = in({2, 9, 6, 16}), weight = in({24, 16, 3, 3});
    const Tensor bias = in({24}), pixel_bias = in({8});
    const Tensor pixel_weight = in({8, 16, 1, 1});
    return ValuesOf(
        {Convolve(x, weight, &bias, {.padding_before = 1, .padding_after = 1}),
         // Of nine rows and the zeros below, the last is in no window.
         Convolve(x, weight, nullptr, {.stride = 2, .padding_after = 1}),
         Convolve(x, pixel_weight, &pixel_bias)});
  };
  CpuDevice host(kPlenty);
  const std::unique_ptr<Device> own = Gpu();
  for (const int order : {kLazyOrder, 3}) {
    UseOrder(order);
    const std::unique_ptr<Device> gpu = Gpu(KernelLibraries());
    for (const DType dtype : kFloatingTypes) {
      const Values got = run(*gpu, dtype, /*shifted=*/false);
      // Sums of dozens of products, in another order.
      ExpectNearHosts(got, run(host, dtype, /*shifted=*/false), dtype,
                      IsHalf(dtype) ? 2 : 60);
    }
    // Other kernels round otherwise.
    EXPECT_FALSE(run(*gpu, DType::kFloat32, false) ==
                 run(*own, DType::kFloat32, false));
    EXPECT_TRUE(run(*gpu, DType::kFloat64, false) ==
                run(*own, DType::kFloat64, false));
    EXPECT_TRUE(run(*gpu, DType::kFloat32, true) ==
                run(*own, DType::kFloat32, true));
  }
}

// Some of the queries, few of the blocks, and a sample without tokens.
TEST(CudaSparseAttentionTest, ChoosesTheBlocksThatTheHostChooses) {
  constexpr int64_t kTokens = 60, kQueries = 37, kFirst = 20, kDim = 8;
  constexpr int64_t kHeads = 6, kKeyHeads = 2;
  const auto run = [&](Device& device) {
    std::vector<int32_t> voxels;
    for (int32_t i = 0; i < 3 * kTokens; ++i) {
      // At places of their own in a grid of 24.
      voxels.insert(voxels.end(),
                    {i * 7 % 24, i * 7 / 24 * 5 % 24, i * 11 % 24});
    }
    const SpatialBlocks blocks = PartitionTokens(
        Tensor::FromValues<int32_t>(device, {3, kTokens, 3}, voxels),
        Tensor::FromValues<int32_t>(device, {3},
                                    std::vector<int32_t>{60, 0, 43}),
        24);
    const auto operand = [&](int64_t tokens, int64_t width, uint32_t seed) {
      return RandomTensor(device, {3, tokens, width}, DType::kFloat64, seed);
    };
    const auto views = [&](const std::vector<Tensor>& of) {
      const auto heads = [&](int i) { return PackedHeads(of[i], 1, 0, kDim); };
      return SparseAttentionInputs{heads(0), heads(1), heads(2),
                                   heads(3), heads(4), of[5]};
    };
    const std::vector<Tensor> inputs = {
        operand(kQueries, kHeads * kDim, 1),
        operand(kTokens, kKeyHeads * kDim, 2),
        operand(kTokens, kKeyHeads * kDim, 3),
        operand(blocks.small.most, kKeyHeads * kDim, 4),
        operand(blocks.small.most, kKeyHeads * kDim, 5),
        operand(kQueries, kSparseBranches, 6)};
    std::vector<Tensor> gradients;
    for (const Tensor& input : inputs) {
      gradients.push_back(Tensor::EmptyLike(input));
    }
    const SparseAttentionOptions options = {
        .top_k = 2, .shifted = true, .first_query = kFirst};
    const SparseAttentionResult forward =
        SparseAttentionForward(views(inputs), blocks, options);
    SparseAttentionBackward(views(inputs), blocks, options, forward,
                            operand(kQueries, kHeads * kDim, 7),
                            views(gradients));
    gradients.push_back(forward.out);
    return std::pair(forward.selected.ToVector<int32_t>(), ValuesOf(gradients));
  };
  CpuDevice host(kPlenty);
  const auto [chosen, expected] = run(host);
  EXPECT_GT(*std::max_element(chosen.begin(), chosen.end()), 2);
  for (const int order : {kLazyOrder, 5}) {
    UseOrder(order);
    const std::unique_ptr<Device> gpu = Gpu();
    const auto [got_chosen, got] = run(*gpu);
    EXPECT_EQ(got_chosen, chosen);
    // Sums of dozens of products, in another order.
    ExpectNearHosts(got, expected, DType::kFloat64, /*roundings=*/60);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Masks, CudaAttentionTest,
    testing::Combine(
        testing::Values(
            MaskCase{.name = "none"},
            MaskCase{.name = "key_counts", .key_counts = true},
            MaskCase{.name = "causal", .causal = true},
            MaskCase{.name = "packed", .packed = true},
            MaskCase{.name = "all",
                     .key_counts = true,
                     .causal = true,
                     .packed = true},
            // The widths of tiles, and beyond them.
            MaskCase{.name = "none_of_72", .channels = 72},
            MaskCase{.name = "all_of_128",
                     .key_counts = true,
                     .causal = true,
                     .packed = true,
                     .channels = 128},
            MaskCase{.name = "causal_of_130", .causal = true, .channels = 130}),
        testing::ValuesIn(kFloatingTypes)),
    [](const testing::TestParamInfo<std::tuple<MaskCase, DType>>& info) {
      return std::get<0>(info.param).name + "_" +
             std::string(DTypeName(std::get<1>(info.param)));
    });

}  // namespace
}  // namespace trireme
