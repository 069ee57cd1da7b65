// Our ops in fp32 against PyTorch's, from ops.safetensors (see generate.py).

#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "runtime/autograd/functions.h"
#include "runtime/autograd/tensor_functions.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/adamw.h"
#include "runtime/ops/attention.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/normalization.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/reduction.h"

namespace trireme {
namespace {

constexpr char kFile[] = "tests/goldens/ops.safetensors";
constexpr double kEps = 1e-6;

// Of the element, and of the largest element of its tensor: elements are sums
// whose terms may cancel.
constexpr double kRelative = 1e-5;
constexpr double kOfLargest = 1e-6;

class OpsGolden : public testing::Test {
 protected:
  OpsGolden() {
    auto file = SafetensorsFile::Open(kFile);
    CHECK_OK(file.status());
    file_ = *std::move(file);
  }

  Tensor Golden(const std::string& name) {
    auto tensor = ReadTensor(*file_, name, device_);
    CHECK_OK(tensor.status());
    return *std::move(tensor);
  }

  Tensor Zeros(const Tensor& like) {
    return Tensor::Zeros(device_, like.shape(), like.dtype());
  }

  void ExpectGolden(const Tensor& got, const std::string& name) {
    const Tensor expected = Golden(name);
    ASSERT_EQ(got.num_elements(), expected.num_elements()) << name;
    ASSERT_EQ(got.dtype(), DType::kFloat32) << name;
    const double largest = MaxAbs(expected);
    for (int64_t i = 0; i < got.num_elements(); ++i) {
      const float value = expected.data<float>()[i];
      ASSERT_NEAR(got.data<float>()[i], value,
                  kRelative * std::abs(value) + kOfLargest * largest)
          << name << ", element " << i << " of " << expected.shape();
    }
  }

  // Runs f on the op's inputs: its result and the gradient of each input.
  void ExpectGoldenFunction(
      const std::string& op, const std::vector<std::string>& inputs,
      const std::function<Variable(Tape&, const std::vector<Variable>&)>& f) {
    Tape tape(device_);
    std::vector<Variable> leaves;
    for (const std::string& input : inputs) {
      leaves.push_back(tape.Leaf(Golden(op + "." + input)));
    }
    const Variable outputs[] = {f(tape, leaves)};
    ExpectGolden(outputs[0].value(), op + ".y");
    const std::vector<Tensor> seeds = {Golden(op + ".dy")};
    tape.Backward(outputs, seeds, Tape::WeightGradients::kImmediate);
    for (size_t i = 0; i < inputs.size(); ++i) {
      ExpectGolden(tape.TakeGradient(leaves[i]), op + ".d" + inputs[i]);
    }
  }

  CpuDevice device_{int64_t{1} << 28};
  std::unique_ptr<SafetensorsFile> file_;
};

TEST_F(OpsGolden, MatMulWithBiasAndActivation) {
  struct Case {
    std::string op;
    Activation activation;
  };
  for (const auto& [op, activation] :
       {Case{"matmul_none", Activation::kNone},
        Case{"matmul_gelu", Activation::kGeluTanh},
        Case{"matmul_silu", Activation::kSilu}}) {
    const Tensor x = Golden(op + ".x"), w = Golden(op + ".w");
    const Tensor b = Golden(op + ".b");
    MatMulOptions options{.transpose_b = true};
    const Tensor before = MatMul(x, w, &b, options);
    options.activation = activation;
    ExpectGolden(MatMul(x, w, &b, options), op + ".y");

    const Tensor slope =
        ActivationBackward(activation, before, Golden(op + ".dy"));
    ExpectGolden(MatMul(slope, w), op + ".dx");
    const Tensor dw = Zeros(w), db = Zeros(b);
    MatMulAccumulate(slope, x, {.transpose_a = true}, dw);
    AccumulateColumnSums(slope, db);
    ExpectGolden(dw, op + ".dw");
    ExpectGolden(db, op + ".db");
  }
}

TEST_F(OpsGolden, Attention) {
  constexpr int64_t kHeadDim = 12;
  const double scale = 1 / std::sqrt(static_cast<double>(kHeadDim));
  for (const std::string op : {"attention_all", "attention_counts"}) {
    const Tensor qkv = Golden(op + ".qkv");
    const Tensor key_counts = Golden(op + ".key_counts");
    const AttentionMask mask{.key_counts =
                                 op == "attention_all" ? Tensor() : key_counts};
    const HeadsView q = PackedHeads(qkv, 3, 0, kHeadDim);
    const HeadsView k = PackedHeads(qkv, 3, 1, kHeadDim);
    const HeadsView v = PackedHeads(qkv, 3, 2, kHeadDim);
    const AttentionResult forward = AttentionForward(q, k, v, scale, mask);
    ExpectGolden(forward.out, op + ".y");
    const Tensor dqkv = Zeros(qkv);
    AttentionBackward(q, k, v, forward, Golden(op + ".dy"), scale, mask,
                      PackedHeads(dqkv, 3, 0, kHeadDim),
                      PackedHeads(dqkv, 3, 1, kHeadDim),
                      PackedHeads(dqkv, 3, 2, kHeadDim));
    ExpectGolden(dqkv, op + ".dqkv");
  }
}

TEST_F(OpsGolden, BatchedMatMul) {
  ExpectGoldenFunction(
      "matmul_batched", {"a", "b"},
      [](Tape& tape, const auto& x) { return MatMul(tape, x[0], x[1]); });
  ExpectGoldenFunction("matmul_batched_transposed", {"a", "b"},
                       [](Tape& tape, const auto& x) {
                         return MatMul(tape, x[0], x[1], true, true);
                       });
}

TEST_F(OpsGolden, CrossAttention) {
  const Tensor key_counts = Golden("cross_attention.key_counts");
  ExpectGoldenFunction("cross_attention", {"q", "kv"},
                       [&](Tape& tape, const auto& x) {
                         return CrossAttention(tape, x[0], x[1], 12, {},
                                               {.key_counts = key_counts});
                       });
}

TEST_F(OpsGolden, NormModulate) {
  for (NormKind kind : {NormKind::kLayer, NormKind::kRms}) {
    const std::string op =
        kind == NormKind::kLayer ? "layer_modulate" : "rms_modulate";
    const Tensor x = Golden(op + ".x"), scale = Golden(op + ".scale");
    const Tensor shift = Golden(op + ".shift");
    const NormResult forward =
        NormModulateForward(kind, x, &scale, &shift, kEps);
    ExpectGolden(forward.out, op + ".y");
    const NormModulateGradients back = NormModulateBackward(
        kind, x, forward, &scale, Golden(op + ".dy"), Tensor());
    ExpectGolden(back.x, op + ".dx");
    ExpectGolden(back.scale, op + ".dscale");
    ExpectGolden(back.shift, op + ".dshift");
  }
}

TEST_F(OpsGolden, NormAffine) {
  for (NormKind kind : {NormKind::kLayer, NormKind::kRms}) {
    const bool layer = kind == NormKind::kLayer;
    const std::string op = layer ? "layer_affine" : "rms_affine";
    const Tensor x = Golden(op + ".x"), weight = Golden(op + ".weight");
    const Tensor bias = layer ? Golden(op + ".bias") : Tensor();
    const NormResult forward =
        NormAffineForward(kind, x, weight, layer ? &bias : nullptr, kEps);
    ExpectGolden(forward.out, op + ".y");
    const Tensor dweight = Zeros(weight), dbias = Zeros(weight);
    const Tensor dx =
        NormAffineBackward(kind, x, forward, weight, Golden(op + ".dy"),
                           Tensor(), &dweight, layer ? &dbias : nullptr);
    ExpectGolden(dx, op + ".dx");
    ExpectGolden(dweight, op + ".dweight");
    if (layer) ExpectGolden(dbias, op + ".dbias");
  }
}

TEST_F(OpsGolden, HeadNormAndRotationOverOneToThreeAxes) {
  for (const std::string op : {"heads_1", "heads_2", "heads_3"}) {
    const Tensor x = Golden(op + ".x"), weight = Golden(op + ".weight");
    const int64_t head_dim = weight.num_elements();
    std::vector<int64_t> axis_dims;
    for (int32_t dim : Golden(op + ".axis_dims").ToVector<int32_t>()) {
      axis_dims.push_back(dim);
    }
    std::vector<double> positions;
    for (int32_t at : Golden(op + ".positions").ToVector<int32_t>()) {
      positions.push_back(at);
    }
    const RopeTable rope =
        MakeRopeTable(device_, axis_dims, positions, 10000.0, DType::kFloat32);
    const Tensor y = Zeros(x), dx = Zeros(x), dweight = Zeros(weight);
    const HeadsView view = PackedHeads(x, 1, 0, head_dim);
    const Tensor rstd = HeadsNormRopeForward(view, &weight, &rope, kEps,
                                             PackedHeads(y, 1, 0, head_dim));
    ExpectGolden(y, op + ".y");
    HeadsNormRopeBackward(view, &weight, &rope, rstd,
                          PackedHeads(Golden(op + ".dy"), 1, 0, head_dim),
                          PackedHeads(dx, 1, 0, head_dim), &dweight);
    ExpectGolden(dx, op + ".dx");
    ExpectGolden(dweight, op + ".dweight");
  }
}

TEST_F(OpsGolden, Activations) {
  const Tensor gelu = Golden("gelu.x"), silu = Golden("silu.x");
  ExpectGolden(ActivationForward(Activation::kGeluTanh, gelu), "gelu.y");
  ExpectGolden(
      ActivationBackward(Activation::kGeluTanh, gelu, Golden("gelu.dy")),
      "gelu.dx");
  ExpectGolden(ActivationForward(Activation::kSilu, silu), "silu.y");
  ExpectGolden(ActivationBackward(Activation::kSilu, silu, Golden("silu.dy")),
               "silu.dx");
  const Tensor swiglu = Golden("swiglu.x");
  ExpectGolden(SwiGluForward(swiglu), "swiglu.y");
  ExpectGolden(SwiGluBackward(swiglu, Golden("swiglu.dy")), "swiglu.dx");
}

TEST_F(OpsGolden, Elementwise) {
  ExpectGoldenFunction("add", {"a", "b"}, [](Tape& tape, const auto& x) {
    return Add(tape, x[0], x[1]);
  });
  ExpectGoldenFunction("multiply", {"a", "b"}, [](Tape& tape, const auto& x) {
    return Multiply(tape, x[0], x[1]);
  });
  ExpectGoldenFunction("scale", {"x"}, [](Tape& tape, const auto& x) {
    return Scale(tape, x[0], -0.3);
  });
  const Tensor b = Golden("add_broadcast.b");
  ExpectGoldenFunction("add_broadcast", {"x"}, [&](Tape& tape, const auto& x) {
    return AddConstant(tape, x[0], b);
  });
  const Tensor db = Zeros(b);
  AccumulateColumnSums(Golden("add_broadcast.dy").Reshape({2, -1}),
                       db.Reshape({-1}));
  ExpectGolden(db, "add_broadcast.db");
}

TEST_F(OpsGolden, Reductions) {
  ExpectGoldenFunction(
      "sum", {"x"}, [](Tape& tape, const auto& x) { return Sum(tape, x[0]); });
  ExpectGoldenFunction("sum_of_squares", {"x"}, [](Tape& tape, const auto& x) {
    return SumOfSquares(tape, x[0]);
  });
  ExpectGoldenFunction("sum_tokens", {"x"}, [](Tape& tape, const auto& x) {
    return SumTokens(tape, x[0]);
  });
  EXPECT_EQ(static_cast<float>(MaxAbs(Golden("max_abs.x"))),
            Golden("max_abs.y").data<float>()[0]);
}

TEST_F(OpsGolden, GatedResidual) {
  const Tensor gate = Golden("gated_residual.gate");
  const Tensor branch = Golden("gated_residual.branch");
  const Tensor dy = Golden("gated_residual.dy");
  ExpectGolden(GatedResidualForward(Golden("gated_residual.x"), gate, branch),
               "gated_residual.y");
  const GatedResidualGradients back = GatedResidualBackward(gate, branch, dy);
  ExpectGolden(dy, "gated_residual.dx");
  ExpectGolden(back.gate, "gated_residual.dgate");
  ExpectGolden(back.y, "gated_residual.dbranch");
}

TEST_F(OpsGolden, Softmax) {
  const Tensor y = SoftmaxForward(Golden("softmax.x"));
  ExpectGolden(y, "softmax.y");
  ExpectGolden(SoftmaxBackward(y, Golden("softmax.dy")), "softmax.dx");
}

TEST_F(OpsGolden, EmbeddingAndItsGradient) {
  const Tensor table = Golden("embedding.table");
  const Tensor indices = Golden("embedding.indices");
  ExpectGolden(GatherRows(table, indices), "embedding.y");
  const Tensor dtable = Zeros(table);
  ScatterAddRows(Golden("embedding.dy"), indices, dtable);
  ExpectGolden(dtable, "embedding.dtable");
}

TEST_F(OpsGolden, RowsGatheredAndScattered) {
  const Tensor taken = Golden("gather_rows.indices");
  ExpectGoldenFunction(
      "gather_rows", {"table"},
      [&](Tape& tape, const auto& x) { return GatherRows(tape, x[0], taken); });
  const Tensor given = Golden("scatter_rows.indices");
  ExpectGoldenFunction("scatter_rows", {"x"}, [&](Tape& tape, const auto& x) {
    return ScatterRows(tape, x[0], given, 7);
  });
}

TEST_F(OpsGolden, TimestepEmbedding) {
  ExpectGolden(
      TimestepEmbedding(Golden("timestep.times"), 18, 10000.0, DType::kFloat32),
      "timestep.y");
}

TEST_F(OpsGolden, Patches) {
  const Tensor tokens = Patchify(Golden("patchify.x"), 2);
  ExpectGolden(tokens, "patchify.y");
  ExpectGolden(Unpatchify(tokens, 2, 3, 4, 6), "patchify.x");
}

TEST_F(OpsGolden, Losses) {
  const Tensor x = Golden("squared_error.x");
  const Tensor target = Golden("squared_error.target");
  ExpectGolden(SquaredErrorSum(x, target), "squared_error.y");
  ExpectGolden(SquaredErrorBackward(x, target, 1.0), "squared_error.dx");
  const Tensor logits = Golden("cross_entropy.x");
  const Tensor labels = Golden("cross_entropy.labels");
  ExpectGolden(CrossEntropySum(logits, labels), "cross_entropy.y");
  ExpectGolden(CrossEntropyBackward(logits, labels, 1.0), "cross_entropy.dx");
}

TEST_F(OpsGolden, AdamWAndMovingAverage) {
  const Tensor theta = Golden("adamw.theta_0");
  const Tensor average = theta.Clone();
  const Tensor m = Zeros(theta), v = Zeros(theta);
  for (int64_t step = 1; step <= 3; ++step) {
    AdamWStep({.learning_rate = 0.02,
               .beta1 = 0.9,
               .beta2 = 0.95,
               .eps = 1e-8,
               .weight_decay = 0.1,
               .step = step},
              Golden(fmt::format("adamw.grad_{}", step)), theta, m, v, theta);
    EmaStep(0.75, theta, average);
    ExpectGolden(theta, fmt::format("adamw.theta_{}", step));
    ExpectGolden(average, fmt::format("adamw.average_{}", step));
  }
  ExpectGolden(m, "adamw.m_3");
  ExpectGolden(v, "adamw.v_3");
}

}  // namespace
}  // namespace trireme
