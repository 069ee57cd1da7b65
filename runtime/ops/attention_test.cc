// Attention against its definition in double precision, and its gradients
// against finite differences.

#include "runtime/ops/attention.h"

#include <omp.h>

#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/cpu/attention.h"
#include "runtime/ops/ops_testing.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

struct Case {
  int64_t batch, heads, queries, keys, head_dim;
  std::vector<int32_t> key_counts;  // empty: all keys
  int64_t queries_per_key = 1;
  std::optional<int64_t> diagonal = {};
  std::vector<int64_t> query_offsets = {};  // empty: one sequence
  std::vector<int64_t> key_offsets = {};

  int64_t key_heads() const { return heads / queries_per_key; }

  bool Sees(int64_t sample, int64_t query, int64_t key) const {
    if (!key_counts.empty() && key >= key_counts[sample]) return false;
    if (diagonal.has_value() && key > query + *diagonal) return false;
    for (size_t n = 0; n + 1 < query_offsets.size(); ++n) {
      if (query_offsets[n] <= query && query < query_offsets[n + 1]) {
        return key_offsets[n] <= key && key < key_offsets[n + 1];
      }
    }
    return true;
  }
};

// What tells cases apart in a failure.
testing::Message Named(DType dtype, const Case& shape) {
  return testing::Message()
         << dtype << " queries " << shape.queries << " keys " << shape.keys
         << " queries per key " << shape.queries_per_key << " diagonal "
         << shape.diagonal.value_or(shape.keys) << " sequences "
         << shape.query_offsets.size();
}

const std::vector<Case>& Cases() {
  static const auto& cases = *new std::vector<Case>{
      {1, 1, 1, 1, 1, {}},
      {2, 3, 5, 7, 4, {}},
      {1, 2, 33, 17, 24, {}},
      {2, 2, 64, 64, 64, {}},
      {1, 1, 20, 600, 8, {}},
      {3, 2, 10, 12, 8, {12, 1, 0}},
      {2, 1, 70, 530, 16, {77, 513}},
      // Grouped queries.
      {2, 4, 9, 11, 8, {}, 2},
      {1, 6, 33, 70, 4, {65}, 3},
      {2, 3, 5, 7, 8, {7, 0}, 3},
      // Causal: whole, shifted either way, beyond every key.
      {2, 2, 150, 150, 8, {}, 1, 0},
      {1, 1, 70, 700, 8, {}, 1, 600},
      {1, 2, 100, 30, 4, {}, 1, -20},
      {1, 1, 5, 9, 4, {}, 1, 20},
      {2, 4, 130, 130, 8, {130, 67}, 2, 0},
      // Sequences, some of them empty, which straddle blocks and granules.
      {2, 2, 30, 30, 8, {}, 1, {}, {0, 7, 7, 20, 30}, {0, 7, 7, 20, 30}},
      {1, 2, 20, 80, 8, {}, 2, {}, {0, 5, 12, 20}, {0, 70, 70, 80}},
      {1, 1, 600, 600, 8, {}, 1, 0, {0, 90, 530, 600}, {0, 90, 530, 600}}};
  return cases;
}

double At(const Tensor& x, int64_t index) {
  return DispatchFloating(x.dtype(), [&]<typename T>(T) {
    return static_cast<double>(x.data<T>()[index]);
  });
}

double At(const HeadsView& x, int64_t b, int64_t t, int64_t h, int64_t c) {
  return At(x.tensor,
            x.offset + (b * x.tokens + t) * x.row_stride + h * x.head_dim + c);
}

// Queries packed alone, keys and values packed together, as in a layer.
struct Inputs {
  Inputs(Device& device, const Case& shape, DType dtype)
      : query(RandomTensor(
            device, {shape.batch, shape.queries, shape.heads * shape.head_dim},
            dtype, 1)),
        key_value(RandomTensor(
            device,
            {shape.batch, shape.keys, 2 * shape.key_heads() * shape.head_dim},
            dtype, 2)),
        q(PackedHeads(query, 1, 0, shape.head_dim)),
        k(PackedHeads(key_value, 2, 0, shape.head_dim)),
        v(PackedHeads(key_value, 2, 1, shape.head_dim)) {
    if (!shape.key_counts.empty()) {
      mask.key_counts =
          Tensor::FromValues<int32_t>(device, {shape.batch}, shape.key_counts);
    }
    mask.diagonal = shape.diagonal;
    if (!shape.query_offsets.empty()) {
      mask.query_offsets =
          std::make_shared<std::vector<int64_t>>(shape.query_offsets);
      mask.key_offsets =
          std::make_shared<std::vector<int64_t>>(shape.key_offsets);
    }
  }

  Tensor query, key_value;
  AttentionMask mask;
  HeadsView q, k, v;
};

void ExpectDefinition(const Case& shape, const Inputs& in, double scale,
                      const AttentionResult& result, double tolerance) {
  for (int64_t b = 0; b < shape.batch; ++b) {
    for (int64_t h = 0; h < shape.heads; ++h) {
      const int64_t key_head = h / shape.queries_per_key;
      for (int64_t i = 0; i < shape.queries; ++i) {
        std::vector<double> p(shape.keys);
        double sum = 0;
        for (int64_t j = 0; j < shape.keys; ++j) {
          if (!shape.Sees(b, i, j)) continue;
          double score = 0;
          for (int64_t c = 0; c < shape.head_dim; ++c) {
            score += At(in.q, b, i, h, c) * At(in.k, b, j, key_head, c);
          }
          sum += p[j] = std::exp(scale * score);
        }
        const int64_t row = (b * shape.heads + h) * shape.queries + i;
        if (sum == 0) {
          EXPECT_EQ(At(result.log_sum_exp, row),
                    -std::numeric_limits<double>::infinity());
        } else {
          ASSERT_NEAR(At(result.log_sum_exp, row), std::log(sum), tolerance);
        }
        for (int64_t c = 0; c < shape.head_dim; ++c) {
          double want = 0;
          for (int64_t j = 0; j < shape.keys && sum > 0; ++j) {
            want += p[j] / sum * At(in.v, b, j, key_head, c);
          }
          const int64_t at =
              ((b * shape.queries + i) * shape.heads + h) * shape.head_dim + c;
          ASSERT_NEAR(At(result.out, at), want, tolerance)
              << "sample " << b << " head " << h << " query " << i;
        }
      }
    }
  }
}

double Tolerance(DType dtype) {
  switch (dtype) {
    case DType::kBFloat16:
      return 0.03;
    case DType::kFloat16:
      return 0.005;
    case DType::kFloat32:
      return 1e-5;
    default:
      return 1e-12;
  }
}

TEST(Attention, IsSoftmaxOfScoresTimesValues) {
  CpuDevice device(int64_t{1} << 30);
  for (DType dtype :
       {DType::kBFloat16, DType::kFloat16, DType::kFloat32, DType::kFloat64}) {
    for (const Case& shape : Cases()) {
      SCOPED_TRACE(Named(dtype, shape));
      const Inputs in(device, shape, dtype);
      const double scale = 1 / std::sqrt(shape.head_dim);
      ExpectDefinition(shape, in, scale,
                       AttentionForward(in.q, in.k, in.v, scale, in.mask),
                       Tolerance(dtype));
    }
  }
}

TEST(Attention, LargeScoresDoNotOverflow) {
  CpuDevice device(int64_t{1} << 30);
  const Inputs in(device, {1, 1, 40, 600, 16, {}}, DType::kFloat32);
  const AttentionResult result = AttentionForward(in.q, in.k, in.v, 100.0);
  for (float x : result.out.ToVector<float>()) ASSERT_TRUE(std::isfinite(x));
}

// Σ weights∘attention, whose gradient with respect to the output is `weights`.
double Loss(const Inputs& in, const Tensor& weights, double scale) {
  const AttentionResult result =
      AttentionForward(in.q, in.k, in.v, scale, in.mask);
  double sum = 0;
  for (int64_t i = 0; i < weights.num_elements(); ++i) {
    sum += At(weights, i) * At(result.out, i);
  }
  return sum;
}

struct Gradients {
  Tensor query, key_value;
};

Gradients Backward(const Case& shape, const Inputs& in, const Tensor& grad_out,
                   double scale) {
  const AttentionResult forward =
      AttentionForward(in.q, in.k, in.v, scale, in.mask);
  Gradients result{Tensor::EmptyLike(in.query),
                   Tensor::EmptyLike(in.key_value)};
  AttentionBackward(in.q, in.k, in.v, forward, grad_out, scale, in.mask,
                    PackedHeads(result.query, 1, 0, shape.head_dim),
                    PackedHeads(result.key_value, 2, 0, shape.head_dim),
                    PackedHeads(result.key_value, 2, 1, shape.head_dim));
  return result;
}

void ExpectFiniteDifferences(const Inputs& in, const Tensor& x,
                             const Tensor& gradient, const Tensor& weights,
                             double scale) {
  constexpr double kStep = 1e-5;
  // At most some hundred elements of a large tensor.
  const int64_t stride = x.num_elements() / 100 * 2 + 1;
  for (int64_t i = 0; i < x.num_elements(); i += stride) {
    double& element = x.data<double>()[i];
    const double value = element;
    element = value + kStep;
    const double above = Loss(in, weights, scale);
    element = value - kStep;
    const double below = Loss(in, weights, scale);
    element = value;
    ASSERT_NEAR(At(gradient, i), (above - below) / (2 * kStep), 1e-7)
        << "element " << i;
  }
}

TEST(Attention, GradientsMatchFiniteDifferences) {
  CpuDevice device(int64_t{1} << 30);
  for (const Case& shape : Cases()) {
    SCOPED_TRACE(Named(DType::kFloat64, shape));
    const Inputs in(device, shape, DType::kFloat64);
    const Tensor weights =
        RandomTensor(device, in.query.shape(), DType::kFloat64, 3);
    const double scale = 0.3;
    const Gradients gradients = Backward(shape, in, weights, scale);
    ExpectFiniteDifferences(in, in.query, gradients.query, weights, scale);
    ExpectFiniteDifferences(in, in.key_value, gradients.key_value, weights,
                            scale);
  }
}

TEST(Attention, NarrowGradientsMatchDoublePrecision) {
  CpuDevice device(int64_t{1} << 30);
  for (DType dtype : {DType::kBFloat16, DType::kFloat32}) {
    for (const Case& shape : Cases()) {
      SCOPED_TRACE(Named(dtype, shape));
      const Inputs narrow(device, shape, dtype);
      Inputs wide(device, shape, DType::kFloat64);
      for (auto [from, to] : {std::pair(narrow.query, wide.query),
                              std::pair(narrow.key_value, wide.key_value)}) {
        for (int64_t i = 0; i < from.num_elements(); ++i) {
          to.data<double>()[i] = At(from, i);
        }
      }
      const Tensor weights =
          RandomTensor(device, narrow.query.shape(), dtype, 3);
      Tensor wide_weights = Tensor::EmptyLike(wide.query);
      for (int64_t i = 0; i < weights.num_elements(); ++i) {
        wide_weights.data<double>()[i] = At(weights, i);
      }
      const double scale = 1 / std::sqrt(shape.head_dim);
      const Gradients got = Backward(shape, narrow, weights, scale);
      const Gradients want = Backward(shape, wide, wide_weights, scale);
      for (auto [x, y] : {std::pair(got.query, want.query),
                          std::pair(got.key_value, want.key_value)}) {
        for (int64_t i = 0; i < x.num_elements(); ++i) {
          ASSERT_NEAR(At(x, i), At(y, i),
                      2 * Tolerance(dtype) * (1 + std::abs(At(y, i))));
        }
      }
    }
  }
}

// Parts that are merged or summed are rounded once, at the end; rounding them
// gives what rounded results are.
TEST(Attention, UnroundedResultsRoundToTheRoundedOnes) {
  CpuDevice device(int64_t{1} << 30);
  for (const Case& shape : Cases()) {
    const Inputs in(device, shape, DType::kBFloat16);
    const double scale = 0.7;
    const AttentionResult rounded =
        AttentionForward(in.q, in.k, in.v, scale, in.mask);
    const AttentionResult unrounded = AttentionForward(
        in.q, in.k, in.v, scale, in.mask, AttentionOutput::kUnrounded);
    ASSERT_EQ(unrounded.out.dtype(), DType::kFloat32);
    const Tensor again = Cast(unrounded.out, DType::kBFloat16);
    for (int64_t at = 0; at < again.num_elements(); ++at) {
      ASSERT_EQ(At(again, at), At(rounded.out, at)) << at;
    }

    const Tensor grad_out =
        RandomTensor(device, rounded.out.shape(), DType::kBFloat16, 3);
    const auto gradients = [&](DType dtype) {
      const Tensor dq = Tensor::Empty(device, in.query.shape(), dtype);
      const Tensor dkv = Tensor::Empty(device, in.key_value.shape(), dtype);
      AttentionBackward(in.q, in.k, in.v, rounded, grad_out, scale, in.mask,
                        PackedHeads(dq, 1, 0, shape.head_dim),
                        PackedHeads(dkv, 2, 0, shape.head_dim),
                        PackedHeads(dkv, 2, 1, shape.head_dim));
      return std::vector<Tensor>{dq, dkv};
    };
    const std::vector<Tensor> narrow = gradients(DType::kBFloat16);
    const std::vector<Tensor> wide = gradients(DType::kFloat32);
    for (size_t i = 0; i < narrow.size(); ++i) {
      const Tensor cast = Cast(wide[i], DType::kBFloat16);
      for (int64_t at = 0; at < cast.num_elements(); ++at) {
        ASSERT_EQ(At(cast, at), At(narrow[i], at)) << i << " at " << at;
      }
    }
  }
}

TEST(Attention, ResultsDoNotDependOnThreads) {
  CpuDevice device(int64_t{1} << 30);
  const Case shape{2, 3, 100, 90, 32, {}};
  const int threads = omp_get_max_threads();
  for (DType dtype : {DType::kBFloat16, DType::kFloat32}) {
    const Inputs in(device, shape, dtype);
    const Tensor grad_out = RandomTensor(device, in.query.shape(), dtype, 3);
    omp_set_num_threads(1);
    const Gradients one = Backward(shape, in, grad_out, 0.2);
    omp_set_num_threads(4);
    const Gradients four = Backward(shape, in, grad_out, 0.2);
    omp_set_num_threads(threads);
    for (auto [x, y] : {std::pair(one.query, four.query),
                        std::pair(one.key_value, four.key_value)}) {
      for (int64_t i = 0; i < x.num_elements(); ++i) {
        ASSERT_EQ(At(x, i), At(y, i));
      }
    }
  }
}

// The kernels with a budget so small that there are several blocks of queries
// and of keys give what one block gives.
TEST(Attention, SmallBlocksGiveTheSame) {
  CpuDevice device(int64_t{1} << 30);
  const std::vector<int64_t> queries = {0, 40, 75}, keys = {0, 37, 110};
  for (const Case& shape :
       {Case{2, 2, 75, 110, 8, {}}, Case{2, 2, 75, 110, 8, {100, 33}},
        Case{2, 2, 75, 110, 8, {}, 2, 20},
        Case{2, 4, 75, 110, 8, {100, 33}, 2, {}, queries, keys}}) {
    const Inputs in(device, shape, DType::kFloat64);
    const Tensor grad_out =
        RandomTensor(device, in.query.shape(), DType::kFloat64, 3);
    const Gradients want = Backward(shape, in, grad_out, 0.5);

    CpuAttentionProblem problem;
    problem.dtype = DType::kFloat64;
    problem.batch = shape.batch;
    problem.heads = shape.heads;
    problem.key_heads = shape.key_heads();
    problem.queries = shape.queries;
    problem.keys = shape.keys;
    problem.head_dim = shape.head_dim;
    problem.scale = 0.5;
    problem.masked = !shape.key_counts.empty();
    problem.diagonal = in.mask.diagonal;
    problem.query_offsets = in.mask.query_offsets;
    problem.key_offsets = in.mask.key_offsets;
    problem.threads = 2;
    problem.block_bytes = 32 * 32 * 16;
    auto pointer = [](const HeadsView& view) {
      return HeadsPointer{view.tensor.data<double>() + view.offset,
                          view.row_stride};
    };
    const Tensor out = Tensor::EmptyLike(in.query);
    const Tensor log_sum_exp = Tensor::Empty(
        device, {shape.batch, shape.heads, shape.queries}, DType::kFloat64);
    const Gradients got{Tensor::EmptyLike(in.query),
                        Tensor::EmptyLike(in.key_value)};
    const AttentionOperands operands{pointer(in.q),
                                     pointer(in.k),
                                     pointer(in.v),
                                     shape.key_counts.data(),
                                     {out.raw_data(), out.dim(-1)},
                                     log_sum_exp.raw_data()};
    const AttentionGradients gradients{
        {grad_out.raw_data(), grad_out.dim(-1)},
        pointer(PackedHeads(got.query, 1, 0, shape.head_dim)),
        pointer(PackedHeads(got.key_value, 2, 0, shape.head_dim)),
        pointer(PackedHeads(got.key_value, 2, 1, shape.head_dim))};
    const Tensor workspace = Tensor::Empty(
        device,
        {std::max(AttentionForwardWorkspace(problem, operands),
                  AttentionBackwardWorkspace(problem, operands, gradients))},
        DType::kUint8);
    AttentionForwardCpu(problem, operands, workspace.raw_data());
    AttentionBackwardCpu(problem, operands, gradients, workspace.raw_data());
    ExpectDefinition(shape, in, 0.5, {out, log_sum_exp}, 1e-12);
    for (auto [x, y] : {std::pair(got.query, want.query),
                        std::pair(got.key_value, want.key_value)}) {
      for (int64_t i = 0; i < x.num_elements(); ++i) {
        ASSERT_NEAR(At(x, i), At(y, i), 1e-12);
      }
    }
  }
}

// Nothing of a block that no query sees is read: its values may be anything.
TEST(Attention, BlocksWithoutVisibleKeysAreSkipped) {
  CpuDevice device(int64_t{1} << 30);
  const Case shape{1, 1, 128, 1024, 8, {}, 1, 0};
  const Inputs in(device, shape, DType::kFloat32);
  for (int64_t at = 128 * 16; at < in.key_value.num_elements(); ++at) {
    in.key_value.data<float>()[at] = std::numeric_limits<float>::quiet_NaN();
  }
  const Tensor grad_out =
      RandomTensor(device, in.query.shape(), DType::kFloat32, 3);
  const Gradients gradients = Backward(shape, in, grad_out, 0.3);
  for (const Tensor& x : {AttentionForward(in.q, in.k, in.v, 0.3, in.mask).out,
                          gradients.query, gradients.key_value}) {
    for (float value : x.ToVector<float>()) ASSERT_TRUE(std::isfinite(value));
  }
}

TEST(Attention, DryRunCountsTheSameBytes) {
  auto run = [](CpuDevice& device, DType dtype, bool masked, bool causal) {
    const int64_t s = 300, heads = 2, head_dim = 24;
    const Tensor qkv =
        Tensor::Zeros(device, {2, s, 3 * heads * head_dim}, dtype);
    const Tensor counts = Tensor::Zeros(device, {2}, DType::kInt32);
    AttentionMask mask;
    if (masked) mask.key_counts = counts;
    if (causal) mask.diagonal = 0;
    auto part = [&](const Tensor& x, int64_t index) {
      return PackedHeads(x, 3, index, head_dim);
    };
    const AttentionResult forward =
        AttentionForward(part(qkv, 0), part(qkv, 1), part(qkv, 2), 0.1, mask);
    const Tensor grad = Tensor::EmptyLike(qkv);
    AttentionBackward(part(qkv, 0), part(qkv, 1), part(qkv, 2), forward,
                      forward.out, 0.1, mask, part(grad, 0), part(grad, 1),
                      part(grad, 2));
    return device.Statistics();
  };
  for (DType dtype :
       {DType::kBFloat16, DType::kFloat16, DType::kFloat32, DType::kFloat64}) {
    for (bool masked : {false, true}) {
      for (bool causal : {false, true}) {
        CpuDevice real(int64_t{1} << 30);
        CpuDevice dry(int64_t{1} << 30, CpuDevice::Mode::kDry);
        const MemoryStatistics a = run(real, dtype, masked, causal);
        const MemoryStatistics b = run(dry, dtype, masked, causal);
        EXPECT_EQ(a.peak_bytes, b.peak_bytes) << dtype;
        EXPECT_EQ(a.peak_by_category, b.peak_by_category) << dtype;
      }
    }
  }
}

}  // namespace
}  // namespace trireme
