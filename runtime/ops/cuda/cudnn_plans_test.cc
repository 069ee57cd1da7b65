// That cuDNN's own library knows the graphs as attention and convolutions, for
// each kind of GPU: it chooses an engine for them and compiles its kernel.
// Nothing runs, so that no GPU need be there.

#include <dlfcn.h>

#include <iostream>
#include <string>

#include "gtest/gtest.h"
#include "runtime/ops/cuda/cudnn_attention.h"
#include "runtime/ops/cuda/cudnn_convolution.h"
#include "runtime/ops/cuda/cudnn_graph.h"

namespace trireme {
namespace {

struct Gpu {
  std::string name;
  int capability;  // 90 of 9.0
  int multiprocessors;
  int shared_bytes;
  int cache_bytes;
};

// As cuDNN writes a GPU's properties.
std::string PropertiesOf(const Gpu& gpu) {
  return "{\"deviceVer\": " + std::to_string(10 * gpu.capability) +
         ", \"driverVer\": 13000, \"cudaDeviceId\": 0, \"totalGlobalMem\": "
         "85024112640, \"maxGridSize\": [2147483647, 65535, 65535], "
         "\"maxBlockSize\": [1024, 1024, 64], \"regsPerBlock\": 65536, "
         "\"multiProcessorCount\": " +
         std::to_string(gpu.multiprocessors) +
         ", \"warpSize\": 32, \"maxSharedMemoryPerBlock\": 49152, "
         "\"maxSharedMemoryPerBlockOptin\": " +
         std::to_string(gpu.shared_bytes) +
         ", \"reservedSharedMemoryPerBlock\": 1024, \"maxRegistersPerSM\": "
         "65536, \"maxCtasPerSM\": 32, \"maxThreadsPerBlock\": 1024, "
         "\"maxThreadsPerSM\": 2048, \"pciDeviceId\": 0, \"isTccDriver\": 0, "
         "\"supportCoopLaunch\": 1, \"smClockRateKHz\": 1980000, "
         "\"memClockRateKHz\": 2619000, \"l2CacheSize\": " +
         std::to_string(gpu.cache_bytes) + ", \"deviceName\": \"" + gpu.name +
         "\"}";
}

class CudnnPlansTest : public testing::TestWithParam<Gpu> {
 protected:
  void SetUp() override {
    if (const absl::Status found = FindCudnn(); !found.ok()) {
      GTEST_SKIP() << found.message();
    }
    // cuDNN finds it by its name.
    if (dlopen("external/cuda/lib/stubs/libcuda.so", RTLD_NOW | RTLD_GLOBAL) ==
        nullptr) {
      GTEST_SKIP() << dlerror();
    }
  }
  // Packed q, k and v, as models have them.
  static CudnnAttentionProblem Problem(int64_t heads, int64_t key_heads,
                                       int64_t tokens, int64_t head_dim) {
    const int64_t row = (heads + 2 * key_heads) * head_dim;
    const int64_t out = heads * head_dim;
    return {.batch = 2,
            .heads = heads,
            .key_heads = key_heads,
            .queries = tokens,
            .keys = tokens,
            .head_dim = head_dim,
            .row_strides = {row, row, row, out, row, row, row, out}};
  }
  static bool HasPlan(CudnnAttentionProblem problem, bool backward) {
    problem.backward = backward;
    return IsFound(FindCudnnAttention(problem, PropertiesOf(GetParam())));
  }
  static bool HasPlan(const ConvolutionProblem& problem) {
    return IsFound(FindCudnnConvolution(problem, PropertiesOf(GetParam())));
  }

 private:
  static bool IsFound(const absl::Status& status) {
    // All but the last step, which a driver that is none refuses.
    const bool has =
        status.ok() ||
        status.message().find("cuLibraryLoadData") != std::string::npos;
    if (!has) std::cout << status << "\n";
    return has;
  }
};

// FLUX, of a length that no tile divides.
TEST_P(CudnnPlansTest, AttentionOfModelsHasKernels) {
  EXPECT_TRUE(HasPlan(Problem(24, 24, 4173, 128), /*backward=*/false));
}

TEST_P(CudnnPlansTest, ItsGradientsHaveKernels) {
  // DiT-XL/2, and heads of queries that share those of keys.
  EXPECT_TRUE(HasPlan(Problem(16, 16, 256, 72), /*backward=*/true));
  EXPECT_TRUE(HasPlan(Problem(8, 2, 1000, 64), /*backward=*/true));
}

TEST_P(CudnnPlansTest, WhatNoKernelComputesIsAnError) {
  EXPECT_FALSE(HasPlan(Problem(8, 8, 256, 1024), /*backward=*/true));
  CudnnAttentionProblem odd = Problem(8, 8, 256, 64);
  odd.head_dim = 60;
  EXPECT_FALSE(HasPlan(odd, /*backward=*/true));
}

// Of an autoencoder: at its narrow ends, in its widest level, between levels
// with zeros below and right of the picture only, and by pixel.
TEST_P(CudnnPlansTest, ConvolutionsOfAutoencodersHaveKernels) {
  const ConvolutionProblem wide = {.batch = 1,
                                   .height = 64,
                                   .width = 64,
                                   .in_channels = 512,
                                   .out_channels = 512,
                                   .kernel = 3,
                                   .padding_before = 1,
                                   .padding_after = 1,
                                   .bias = true};
  ConvolutionProblem first = wide, last = wide, down = wide, pixels = wide;
  first.in_channels = 3;
  last.out_channels = 3;
  down.stride = 2;
  down.padding_before = 0;
  pixels.kernel = 1;
  pixels.padding_before = pixels.padding_after = 0;
  for (const DType dtype :
       {DType::kBFloat16, DType::kFloat16, DType::kFloat32}) {
    for (ConvolutionProblem problem : {wide, first, last, down, pixels}) {
      // Without tensor cores cuDNN 9.19 has none on some GPUs.
      if (problem == down && dtype == DType::kFloat32) continue;
      problem.dtype = dtype;
      EXPECT_TRUE(HasPlan(problem)) << DTypeName(dtype);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Gpus, CudnnPlansTest,
    testing::Values(Gpu{"A100", 80, 108, 166912, 41943040},
                    Gpu{"H100", 90, 132, 232448, 52428800},
                    Gpu{"B200", 100, 148, 232448, 132644864}),
    [](const testing::TestParamInfo<Gpu>& info) { return info.param.name; });

}  // namespace
}  // namespace trireme
