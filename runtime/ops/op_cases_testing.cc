#include "runtime/ops/op_cases_testing.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/float8.h"
#include "runtime/ops/grouped_matmul.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/normalization.h"
#include "runtime/ops/op_case_families_testing.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/quantization.h"
#include "runtime/ops/random.h"
#include "runtime/ops/reduction.h"
#include "runtime/ops/routing.h"
#include "runtime/ops/split_norm.h"
#include "runtime/ops/weight_decomposition.h"

namespace trireme {
namespace {

constexpr double kEps = 1e-6;

std::vector<OpCase> Pointwise() {
  const Shape shape = {3, 67, 385};
  return {
      {"Activation",
       [=](Operands& in) -> std::vector<Tensor> {
         const Tensor x = in(shape), slope = in(shape);
         return {ActivationForward(Activation::kGeluTanh, x),
                 ActivationBackward(Activation::kGeluTanh, x, slope),
                 ActivationForward(Activation::kSilu, x),
                 ActivationBackward(Activation::kSilu, x, slope),
                 ActivationForward(Activation::kGelu, x),
                 ActivationBackward(Activation::kGelu, x, slope),
                 ActivationForward(Activation::kRelu, x),
                 ActivationBackward(Activation::kRelu, x, slope)};
       }},
      {"SwiGlu",
       [](Operands& in) -> std::vector<Tensor> {
         const Tensor x = in({201, 770}), slope = in({201, 385});
         return {SwiGluForward(x), SwiGluBackward(x, slope)};
       }},
      {"Arithmetic",
       [=](Operands& in) -> std::vector<Tensor> {
         const Tensor a = in(shape), b = in(shape), sum = in(shape);
         AddInPlace(a, sum, 0.5);
         ScaleInPlace(sum, 3);
         return {Add(a, b), Multiply(a, b), Scale(a, 0.3), sum};
       }},
      {"Cast",
       [=](Operands& in) -> std::vector<Tensor> {
         const Tensor x = in(shape);
         return {Cast(x, DType::kFloat32), Cast(x, DType::kBFloat16),
                 Cast(x, DType::kFloat64)};
       }},
      {"AddBroadcast",
       [=](Operands& in) -> std::vector<Tensor> {
         const Tensor x = in(shape), table = in({67, 385});
         return {AddBroadcast(x, table)};
       }},
      {"GatedResidual",
       [=](Operands& in) -> std::vector<Tensor> {
         const Tensor x = in(shape), gate = in({3, 385}), y = in(shape);
         const GatedResidualGradients back = GatedResidualBackward(gate, y, x);
         return {GatedResidualForward(x, gate, y), back.gate, back.y};
       }},
  };
}

std::vector<OpCase> Norms() {
  std::vector<OpCase> cases;
  for (NormKind kind : {NormKind::kLayer, NormKind::kRms}) {
    const std::string name = kind == NormKind::kLayer ? "LayerNorm" : "RmsNorm";
    cases.push_back(
        {name + " modulated", [=](Operands& in) -> std::vector<Tensor> {
           const Tensor x = in({3, 67, 385}), slope = in({3, 67, 385});
           const Tensor scale = in({3, 385}), shift = in({3, 385});
           const NormResult forward =
               NormModulateForward(kind, x, &scale, &shift, kEps);
           const NormModulateGradients back = NormModulateBackward(
               kind, x, forward, &scale, slope, in({3, 67, 385}));
           return {forward.out, forward.rstd, back.x, back.scale, back.shift};
         }});
    cases.push_back(
        {name + " affine", [=](Operands& in) -> std::vector<Tensor> {
           const Tensor x = in({201, 385}), slope = in({201, 385});
           const Tensor weight = in({385}), bias = in({385});
           const NormResult forward =
               NormAffineForward(kind, x, weight, &bias, kEps);
           const Tensor dweight =
               Tensor::Zeros(x.device(), {385}, forward.rstd.dtype());
           const Tensor dbias = dweight.Clone();
           const Tensor dx = NormAffineBackward(kind, x, forward, weight, slope,
                                                Tensor(), &dweight, &dbias);
           return {forward.out, forward.rstd, dx, dweight, dbias};
         }});
  }
  return cases;
}

std::vector<OpCase> HeadNorms() {
  return {{"heads", [](Operands& in) -> std::vector<Tensor> {
             const Tensor x = in({2, 67, 3 * 6 * 34}), weight = in({34});
             const Tensor slope = in({2, 67, 3 * 6 * 34});
             const int64_t dims[] = {34};
             std::vector<double> positions(67);
             for (int i = 0; i < 67; ++i) positions[i] = i;
             const DType compute = ComputeDType(x.dtype());
             const RopeTable rope =
                 MakeRopeTable(x.device(), dims, positions, 1e4, compute);
             const Tensor out = Tensor::Zeros(x.device(), x.shape(), x.dtype());
             const Tensor dx = Tensor::Zeros(x.device(), x.shape(), x.dtype());
             const Tensor dweight = Tensor::Zeros(x.device(), {34}, compute);
             const HeadsView view = PackedHeads(x, 3, 1, 34);
             const Tensor rstd = HeadsNormRopeForward(
                 view, &weight, &rope, kEps, PackedHeads(out, 3, 1, 34));
             HeadsNormRopeBackward(view, &weight, &rope, rstd,
                                   PackedHeads(slope, 3, 1, 34),
                                   PackedHeads(dx, 3, 1, 34), &dweight);
             return {out, rstd, dx, dweight};
           }}};
}

std::vector<OpCase> SplitNorms() {
  const auto run = [](Operands& in, int64_t channels, bool rotated) {
    constexpr int64_t kHeads = 6;
    const int64_t width = kHeads * channels;
    const Tensor x = in({2, 67, 3 * width}), weight = in({width});
    const Tensor slope = in({2, 67, 3 * width});
    const DType compute = ComputeDType(x.dtype());
    RopeTable rope;
    if (rotated) {
      const int64_t dims[] = {channels};
      std::vector<double> positions(67);
      for (int i = 0; i < 67; ++i) positions[i] = i;
      rope = MakeRopeTable(x.device(), dims, positions, 1e4, compute);
    }
    // As if another rank had as many heads.
    const SplitNorm norm = {
        .width = 2 * width, .eps = kEps, .rope = rotated ? &rope : nullptr};
    const auto view = [&](const Tensor& packed) {
      return PackedHeads(packed, 3, 1, channels);
    };
    const Tensor squares = Tensor::Empty(x.device(), {2 * 67}, DType::kFloat64);
    const Tensor dots = Tensor::EmptyLike(squares);
    const Tensor out = Tensor::Zeros(x.device(), x.shape(), x.dtype());
    const Tensor dx = Tensor::Zeros(x.device(), x.shape(), x.dtype());
    const Tensor dweight = Tensor::Zeros(x.device(), {width}, compute);
    SplitNormSquares(view(x), squares);
    SplitNormForward(norm, view(x), weight, squares, view(out));
    SplitNormDots(norm, view(x), weight, view(slope), dots);
    SplitNormBackward(norm, view(x), weight, squares, view(slope), dots,
                      view(dx));
    SplitNormWeightGradient(norm, view(x), squares, view(slope), dweight);
    return std::vector<Tensor>{squares, out, dots, dx, dweight};
  };
  return {{"split norm of rotated heads",
           [=](Operands& in) { return run(in, 34, /*rotated=*/true); }},
          {"split norm of odd heads",
           [=](Operands& in) { return run(in, 33, /*rotated=*/false); }}};
}

std::vector<OpCase> WeightDecompositions() {
  return {{"weight decomposition", [](Operands& in) -> std::vector<Tensor> {
             const Tensor weight = in({385, 201}), other = in({385, 201});
             const DType compute = ComputeDType(weight.dtype());
             const Tensor squares =
                 Tensor::Zeros(weight.device(), {385}, DType::kFloat64);
             AddRowProducts(weight, weight, 1, squares);
             AddRowProducts(weight, other, 0.25, squares);
             const Tensor magnitude = Cast(in({385}), compute);
             const DirectionFactors factors =
                 MakeDirectionFactors(magnitude, squares);
             const Tensor x = in({3, 67, 385}), slope = in({3, 67, 385});
             const Tensor gradient =
                 Tensor::Zeros(weight.device(), {385}, compute);
             AddMagnitudeGradient(x, slope, factors.inverse, gradient);
             return {squares, factors.scale, factors.inverse,
                     ScaleColumns(x, factors.scale), gradient};
           }}};
}

std::vector<OpCase> Reductions() {
  const Shape shape = {3, 67, 385};
  return {
      {"Softmax",
       [=](Operands& in) -> std::vector<Tensor> {
         const Tensor x = in(shape), slope = in(shape);
         const Tensor y = SoftmaxForward(x);
         return {y, SoftmaxBackward(y, slope)};
       }},
      {"SumTokens",
       [=](Operands& in) -> std::vector<Tensor> {
         return {SumTokens(in(shape))};
       }},
      {"SquaredError",
       [=](Operands& in) -> std::vector<Tensor> {
         const Tensor a = in(shape), b = in(shape);
         return {SquaredErrorSum(a, b), SquaredErrorBackward(a, b, 0.1)};
       }},
      {"CrossEntropy",
       [](Operands& in) -> std::vector<Tensor> {
         const Tensor logits = in({201, 385});
         const Tensor labels = Tensor::FromValues<int32_t>(
             logits.device(), {201}, std::vector<int32_t>(201, 7));
         return {CrossEntropySum(logits, labels),
                 CrossEntropyBackward(logits, labels, 0.1),
                 CrossEntropySum(logits, labels, 0.25),
                 CrossEntropyBackward(logits, labels, 0.1, 0.25)};
       }},
      {"Scalars",
       [=](Operands& in) -> std::vector<Tensor> {
         const Tensor x = in(shape);
         const double values[] = {Sum(x), SumOfSquares(x), MaxAbs(x)};
         return {Tensor::FromValues<double>(x.device(), {3}, values)};
       }},
  };
}

std::vector<OpCase> Copies() {
  return {
      {"Slices",
       [](Operands& in) -> std::vector<Tensor> {
         const Tensor x = in({3, 67, 385});
         const Tensor columns = CopySlice(x, -1, 5, 130);
         WriteSlice(columns, -1, 200, x);
         const Tensor tokens = CopySlice(x, 1, 7, 60);
         ZeroSlice(tokens, 1, 40, 53);
         return {columns, x, tokens};
       }},
      {"Swap",
       [](Operands& in) -> std::vector<Tensor> {
         const Tensor x = in({67, 31, 16});
         const Tensor y = Tensor::EmptyLike(x);
         SwapRowsAndColumns(x, 67, 31, y);
         return {y, RepeatOverTokens(x.Reshape({67, -1}), 5),
                 Full(x.device(), x.shape(), x.dtype(), 0.1)};
       }},
  };
}

std::vector<OpCase> Float8() {
  // Of x[m, k] by weights of n channels, and of x by their transpose.
  const auto run = [](Operands& in, int64_t m, int64_t n,
                      int64_t k) -> std::vector<Tensor> {
    std::vector<Tensor> results;
    for (const Float8Of of : {Float8Of::kRows, Float8Of::kColumns}) {
      const Tensor x = in({m, k}), bias = in({n});
      const Tensor weight =
          of == Float8Of::kRows ? in(Shape{n, k}) : in(Shape{k, n});
      Device& device = x.device();
      const Tensor scales = Tensor::Empty(device, {m + n}, DType::kFloat32,
                                          MemoryCategory::kWorkspace, "scales");
      const Tensor of_w = scales.Slice(0, n), of_x = scales.Slice(n, n + m);
      Float8Scales(x, Float8Of::kRows, of_x);
      Float8Scales(weight, of, of_w);
      const QuantizedTensor a = ToFloat8(x, Float8Of::kRows, of_x, "x");
      const QuantizedTensor b = ToFloat8(weight, of, of_w, "weight");
      for (const Tensor* addend :
           {static_cast<const Tensor*>(nullptr), &bias}) {
        results.push_back(MatMulFloat8(a, b, addend, x.dtype(), "product"));
      }
      results.push_back(scales);
      results.push_back(Dequantize(b, x.dtype(), "weights"));
    }
    return results;
  };
  // The three products of a layer by one scale an operand, within whose reach
  // not all elements are; tokens and channels suit tensor cores, or do not.
  const auto whole = [](Operands& in, int64_t m, int64_t n,
                        int64_t k) -> std::vector<Tensor> {
    const Tensor x = in({m, k}), weight = in({n, k}), dy = in({m, n});
    const Tensor bias = in({n});
    Device& device = x.device();
    const std::vector<float> least = {0x1p-8f, 0x1p-7f, 0x1p-9f};
    const Tensor scales = Tensor::FromValues<float>(device, {3}, least);
    const Tensor needed = Tensor::Zeros(device, {3}, DType::kFloat32);
    const auto codes = [&](const Tensor& matrix, Float8Of of, int64_t i) {
      return ToFloat8Whole(matrix, of, scales.Slice(i, i + 1),
                           needed.Slice(i, i + 1), "codes");
    };
    const Tensor gradient =
        Tensor::Zeros(device, {n, k}, ComputeDType(x.dtype()));
    MatMulFloat8Accumulate(codes(dy, Float8Of::kColumns, 2),
                           codes(x, Float8Of::kColumns, 0), x.dtype(), gradient,
                           "weight gradient");
    const Tensor raised = Tensor::Zeros(device, {1}, DType::kFloat32);
    RaiseFloat8Needed(dy, raised);
    return {MatMulFloat8(codes(x, Float8Of::kRows, 0),
                         codes(weight, Float8Of::kRows, 1), &bias, x.dtype(),
                         "product"),
            MatMulFloat8(codes(dy, Float8Of::kRows, 2),
                         codes(weight, Float8Of::kColumns, 1), nullptr,
                         x.dtype(), "input gradient"),
            gradient, needed, raised};
  };
  // Channels of the first suit tensor cores, those of the second do not.
  return {
      {"Float8 one scale",
       [=](Operands& in) { return whole(in, 208, 144, 96); }, 4,
       /*same_on_any_threads=*/false},
      {"Float8 one scale odd",
       [=](Operands& in) { return whole(in, 201, 71, 131); }, 4,
       /*same_on_any_threads=*/false},
      {"Float8 whole", [=](Operands& in) { return run(in, 201, 144, 208); }, 4,
       /*same_on_any_threads=*/false},
      {"Float8 odd", [=](Operands& in) { return run(in, 201, 71, 131); }, 4,
       /*same_on_any_threads=*/false}};
}

// Columns of a matrix of 200.
QuantizedTensor QuantizedWeights(Device& device,
                                 const QuantizedMatrix& layout) {
  CpuDevice host(int64_t{1} << 30);
  std::vector<float> weights(layout.rows * 200);
  for (size_t i = 0; i < weights.size(); ++i) {
    weights[i] = static_cast<float>(std::sin(static_cast<double>(i)));
  }
  const QuantizedTensor quantized = EmptyQuantized(device, layout, "weights");
  Quantize(Tensor::FromValues<float>(host, {layout.rows, 200}, weights),
           quantized);
  return quantized;
}

std::vector<OpCase> Embeddings() {
  return {
      {"Rows",
       [](Operands& in) -> std::vector<Tensor> {
         const Tensor table = in({67, 385});
         std::vector<int32_t> indices(67);
         for (int i = 0; i < 67; ++i) indices[i] = i * i % 67;
         const Tensor index_tensor =
             Tensor::FromValues<int32_t>(table.device(), {67}, indices);
         const Tensor rows = GatherRows(table, index_tensor);
         const Tensor gradient = Tensor::Zeros(table.device(), {67, 385},
                                               ComputeDType(table.dtype()));
         ScatterAddRows(rows, index_tensor, gradient);
         return {rows, gradient};
       }},
      {"Dequantize",
       [](Operands& in) -> std::vector<Tensor> {
         const Tensor like = in({1});
         std::vector<Tensor> results;
         for (const WeightFormat format :
              {WeightFormat::kFloat8, WeightFormat::kNormalFloat4}) {
           const QuantizedTensor quantized =
               QuantizedWeights(like.device(), {.format = format,
                                                .rows = 67,
                                                .columns = 81,
                                                .first_column = 50});
           results.push_back(Dequantize(quantized, like.dtype(), "weights"));
         }
         return results;
       }},
      {"Patches",
       [](Operands& in) -> std::vector<Tensor> {
         const Tensor x = in({3, 5, 34, 66});
         const Tensor tokens = Patchify(x, 2);
         return {tokens, Unpatchify(tokens, 2, 5, 34, 66)};
       }},
      {"Timesteps",
       [](Operands& in) -> std::vector<Tensor> {
         const Tensor times = in({67});
         return {TimestepEmbedding(times, 386, 1e4, times.dtype())};
       }},
  };
}

std::vector<OpCase> Random() {
  return {{"FillRandom", [](Operands& in) -> std::vector<Tensor> {
             const Tensor x = in({9005});
             FillRandom(RandomStream({.seed = 1}), Distribution::kNormal, 1,
                        {{{5, 0, 3}, {21, 3, 1}, {1002, 4, 9001}}}, x);
             return {x};
           }}};
}

std::vector<OpCase> Routing() {
  const auto groups = [](Device& device, int64_t tokens) {
    std::vector<int32_t> values;
    for (int32_t i = 0; i < 2 * tokens; ++i) values.push_back(i * 7 % 4);
    return Tensor::FromValues<int32_t>(device, {tokens, 2}, values);
  };
  return {
      {"top k",
       [](Operands& operands) -> std::vector<Tensor> {
         const Tensor x = operands({4000, 16});
         return {SelectColumns(x, TopK(x, 3))};
       }},
      {"columns",
       [groups](Operands& operands) -> std::vector<Tensor> {
         const Tensor x = operands({5000, 4});
         const Tensor indices = groups(x.device(), 5000);
         const Tensor y = SelectColumns(x, indices);
         return {y, PlaceColumns(y, indices, 4)};
       }},
      {"rows",
       [groups](Operands& operands) -> std::vector<Tensor> {
         const Tensor x = operands({800, 40});
         const SortedRoutes sorted = SortRoutes(groups(x.device(), 800), 4);
         const Tensor rows = GatherRows(x, sorted.tokens);
         return {rows, SumRows(rows, sorted.places), RowDots(x, x),
                 LogSumExp(x), ScaleRows(x, RowDots(x, x))};
       }},
      {"grouped product", [](Operands& operands) -> std::vector<Tensor> {
         const std::vector<int64_t> counts = {300, 0, 1, 37};
         const Tensor x = operands({338, 40});
         const Tensor y = GroupedMatMul(x, operands({4, 72, 40}), counts, true);
         const Tensor sums =
             Tensor::Zeros(x.device(), {4, 72, 40}, ComputeDType(x.dtype()));
         GroupedMatMulAccumulate(y, x, counts, sums);
         const Tensor bias = operands({4, 72});
         const Tensor biased =
             GroupedMatMul(x, operands({4, 72, 40}), counts, true, &bias);
         // As the gradient of a bias is formed: of rows of one element.
         const Tensor column = operands({338, 1});
         const Tensor of_bias =
             Tensor::Zeros(x.device(), {4, 72, 1}, ComputeDType(x.dtype()));
         GroupedMatMulAccumulate(biased, column, counts, of_bias);
         return {y, sums, biased, of_bias};
       }}};
}

std::vector<OpCase> Products() {
  const auto sums = [](const Tensor& like, const Shape& shape) {
    return Tensor::Zeros(like.device(), shape, ComputeDType(like.dtype()));
  };
  return {
      {.name = "MatMul",
       .run = [=](Operands& in) -> std::vector<Tensor> {
         const Tensor x = in({3, 67, 96}), weight = in({80, 96});
         const Tensor bias = in({80});
         const Tensor y =
             MatMul(x, weight, &bias,
                    {.transpose_b = true, .activation = Activation::kGeluTanh});
         const Tensor gradient = sums(x, {80, 96});
         MatMulAccumulate(y, x, {.transpose_a = true}, gradient);
         const Tensor columns = sums(x, {96});
         AccumulateColumnSums(x, columns);
         return {y, MatMul(y, weight), gradient, columns};
       },
       .same_on_any_threads = false},
      {.name = "MatMul of gradients",
       .run = [=](Operands& in) -> std::vector<Tensor> {
         const Tensor dy = in({3, 67, 80}), weight = in({80, 96});
         const Tensor odd = in({80, 90});
         const Tensor x = in({3, 67, 96}), odd_x = in({3, 67, 90});
         const Tensor gradient = sums(x, {80, 96});
         const Tensor of_bias = sums(x, {80});
         // What is there stays.
         for (int i = 0; i < 2; ++i) {
           MatMulAccumulate(dy, x, {.transpose_a = true}, gradient, &of_bias);
         }
         return {
             MatMulActivationBackward(dy, weight, Activation::kGeluTanh, x),
             MatMulActivationBackward(dy, odd, Activation::kGeluTanh, odd_x),
             MatMulActivationBackward(dy, weight, Activation::kGelu, x),
             gradient, of_bias};
       },
       .same_on_any_threads = false},
      {.name = "MatMul of codes",
       .run = [](Operands& in) -> std::vector<Tensor> {
         const Tensor x = in({3, 67, 149}), bias = in({145});
         const Tensor dy = in({3, 67, 145});
         std::vector<Tensor> results;
         for (const WeightFormat format :
              {WeightFormat::kFloat8, WeightFormat::kNormalFloat4}) {
           const QuantizedTensor weight =
               QuantizedWeights(x.device(), {.format = format,
                                             .rows = 145,
                                             .columns = 149,
                                             .first_column = 51});
           results.push_back(MatMul(x, weight, &bias, {.transpose_b = true}));
           results.push_back(MatMul(dy, weight));
           results.push_back(
               MatMulActivationBackward(dy, weight, Activation::kGeluTanh, x));
         }
         return results;
       },
       .same_on_any_threads = false},
      {.name = "batched MatMul",
       .run = [](Operands& in) -> std::vector<Tensor> {
         return {MatMul(in({6, 67, 40}), in({6, 67, 40}), nullptr,
                        {.transpose_b = true})};
       },
       .same_on_any_threads = false},
  };
}

double RootMeanSquare(const std::vector<double>& values) {
  double squares = 0;
  for (const double value : values) squares += value * value;
  return values.empty()
             ? 0
             : std::sqrt(squares / static_cast<double>(values.size()));
}

}  // namespace

std::vector<OpCase> EveryOp() {
  std::vector<OpCase> all;
  for (auto* const family :
       {Pointwise, Norms, HeadNorms, SplitNorms, WindowAttentions,
        WeightDecompositions, Reductions, Copies, Embeddings, Float8, Random,
        Routing, Products, Attentions, SparseAttentions, Pictures,
        SparseVoxels}) {
    std::vector<OpCase> cases = family();
    std::move(cases.begin(), cases.end(), std::back_inserter(all));
  }
  return all;
}

std::vector<std::vector<double>> ValuesOf(const std::vector<Tensor>& tensors) {
  std::vector<std::vector<double>> values;
  for (const Tensor& tensor : tensors) values.push_back(Doubles(tensor));
  return values;
}

void ExpectNearFp64(const OpCase& op, DType dtype, Device& device) {
  CpuDevice host(kPlenty);
  Operands operands(device, dtype);
  Operands exact = Operands::Rounded(host, dtype);
  const auto got = ValuesOf(op.run(operands));
  const auto expected = ValuesOf(op.run(exact));
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i].size(), expected[i].size()) << "output " << i;
    const double usual = RootMeanSquare(expected[i]);
    double worst = 0;
    for (size_t j = 0; j < got[i].size(); ++j) {
      const double distance = std::abs(got[i][j] - expected[i][j]) /
                              (usual + std::abs(expected[i][j]));
      // A NaN is far from everything.
      if (!(distance <= worst)) worst = distance;
    }
    EXPECT_LE(worst / RoundingOf(dtype), op.roundings) << "output " << i;
  }
}

std::string NameOf(const OpCase& op, DType dtype) {
  std::string name = op.name + "_" + std::string(DTypeName(dtype));
  std::replace(name.begin(), name.end(), ' ', '_');
  return name;
}

}  // namespace trireme
