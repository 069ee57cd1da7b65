#include "runtime/autograd/functions.h"

#include <memory>
#include <string_view>
#include <utility>

#include "runtime/core/log.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/quantization.h"
#include "runtime/ops/reduction.h"

namespace trireme {
namespace {

// A weight [parts, out, in] seen as the matrix [parts·out, in].
Tensor AsMatrix(const Tensor& weight) {
  return weight.Reshape({-1, weight.dim(-1)});
}

// f of the weight's matrix as products take it: values, or codes.
template <typename F>
Tensor OfMatrix(const Parameter& weight, const F& f) {
  return weight.format == WeightFormat::kFull ? f(AsMatrix(weight.value))
                                              : f(weight.quantized);
}

Tensor Flat(const Tensor& x) { return x.Reshape({-1}); }

constexpr std::string_view kInputGradient = "linear input gradient";

// The gradient of a layer's result as products in FP8 have it.
Tensor Float8Gradient(const Tensor& dy, const LinearExchange& exchange) {
  return exchange.sum_parts ? exchange.sum_parts(dy) : dy;
}

// This rank's part of the gradient of a layer's input, from Float8Gradient.
Tensor Float8InputGradient(const Tensor& dy, const Parameter& weight,
                           const LinearExchange& exchange) {
  if (!exchange.product_is_here) {
    Shape shape = dy.shape();
    shape.set_dim(-1, LocalShape(weight.global_shape, weight.shards).dim(-1));
    return Tensor::Zeros(dy.device(), shape, dy.dtype());
  }
  return Float8Product(dy, Float8Operand::kGradient, WeightMatrix(weight),
                       Float8Of::kColumns, nullptr, weight.float8_delay,
                       exchange.agree_backward, kInputGradient);
}

// The same of any layer, or the gradient of what an activation makes that input
// of, which is then `x`. Of products in FP8 `dy` is from Float8Gradient.
Tensor InputGradient(const Tensor& dy, const Parameter& weight,
                     const LinearExchange& exchange, Activation activation,
                     const Tensor& x) {
  if (weight.float8_products) {
    const Tensor dx = Float8InputGradient(dy, weight, exchange);
    return x.defined() ? ActivationBackward(activation, x, dx) : dx;
  }
  const MatMulOptions options = {.label = kInputGradient};
  return OfMatrix(weight, [&](const auto& matrix) {
    return x.defined()
               ? MatMulActivationBackward(dy, matrix, activation, x, options)
               : MatMul(dy, matrix, nullptr, options);
  });
}

}  // namespace

Tensor WeightMatrix(const Parameter& weight) {
  return weight.format == WeightFormat::kFull
             ? AsMatrix(weight.value)
             : Dequantize(weight.quantized, weight.dtype, weight.name);
}

Variable Linear(Tape& tape, const Variable& x, Parameter& weight,
                Parameter* bias, const LinearExchange& exchange,
                const InputActivation& activation) {
  const bool activated = activation.function != Activation::kNone;
  CHECK(!activated || (!exchange.gather && !exchange.reduce)) << weight.name;
  Tensor b;
  if (bias != nullptr) b = Flat(bias->value);
  const Tensor input =
      activated ? ActivationForward(activation.function, x.value()) : x.value();
  const Tensor whole = exchange.gather ? exchange.gather(input).Wait() : input;
  const Tensor* const addend = bias != nullptr ? &b : nullptr;
  Tensor y =
      weight.float8_products
          ? Float8Product(whole, Float8Operand::kInput, WeightMatrix(weight),
                          Float8Of::kRows, addend, weight.float8_delay,
                          exchange.agree_forward, weight.name)
          : OfMatrix(weight, [&](const auto& matrix) {
              return MatMul(whole, matrix, addend,
                            {.transpose_b = true, .label = weight.name});
            });
  std::vector<Parameter*> parameters = {&weight};
  if (bias != nullptr) parameters.push_back(bias);
  // Only the weight's gradient reads the input.
  std::function<Tensor()> recipe;
  Tensor kept;
  if (weight.trainable) {
    if (!activated) {
      recipe = x.recipe();
    } else if (activation.keep == Keep::kRecipe) {
      recipe = [function = activation.function, x = x.value()] {
        return ActivationForward(function, x);
      };
    }
    if (!recipe) kept = input;
  }
  return tape.Record(
      activated ? "activation and linear" : "linear", {x}, parameters,
      std::move(y), {std::move(kept), activated ? x.value() : Tensor()},
      [&weight, bias, exchange, function = activation.function,
       recipe = std::move(recipe)](Tape::Gradients& gradients) {
        const Tensor dy = gradients.TakeOutput();
        std::function<Tensor()> input = recipe;
        if (!input) input = [kept = gradients.Saved(0)] { return kept; };
        std::function<Tensor()> whole = input;
        std::function<void()> prepare;
        if (exchange.gather_again && weight.trainable) {
          const auto pending = std::make_shared<PendingTensor>();
          whole = [pending] { return pending->Wait(); };
          prepare = [pending, input, gather = exchange.gather_again] {
            *pending = gather(input());
          };
          // Behind the product to come, or where the gradient is queued behind
          // the gradient ahead of it.
          if (!gradients.deferred()) std::exchange(prepare, nullptr)();
        }
        const Float8Delay& delay = weight.float8_delay;
        const bool rounds_gradient =
            delay.Knows(Float8Operand::kGradient, Float8Operand::kInput);
        Tensor sum = dy;
        if (delay.active() || (weight.float8_products && gradients.Needs(0))) {
          sum = Float8Gradient(dy, exchange);
        }
        // No product is to do it.
        if (delay.active() && !gradients.Needs(0) && !rounds_gradient) {
          RaiseFloat8Needed(sum, delay.NeededOf(Float8Operand::kGradient));
        }
        PendingTensor dx;
        if (gradients.Needs(0)) {
          Tensor product = InputGradient(sum, weight, exchange, function,
                                         gradients.Saved(1));
          dx = exchange.reduce ? exchange.reduce(std::move(product))
                               : PendingTensor(std::move(product));
        }
        // A bias's gradient is of the same operand.
        Parameter* const with_bias = !rounds_gradient && weight.trainable &&
                                             bias != nullptr && bias->trainable
                                         ? bias
                                         : nullptr;
        std::function<void()> accumulate = [&weight, with_bias, dy, whole] {
          Tensor sums;
          if (with_bias != nullptr) sums = Flat(with_bias->grad);
          MatMulAccumulate(dy, whole(), {.transpose_a = true},
                           AsMatrix(weight.grad),
                           sums.defined() ? &sums : nullptr);
        };
        if (rounds_gradient) {
          accumulate = [&weight, sum, whole, here = exchange.product_is_here] {
            const Tensor x = whole();
            if (!here) return;
            AccumulateFloat8Gradient(sum, x, weight.float8_delay,
                                     AsMatrix(weight.grad), weight.name);
          };
        }
        if (with_bias != nullptr) {
          gradients.AddWeightGradients(weight, *bias, std::move(accumulate),
                                       std::move(prepare));
        } else {
          gradients.AddWeightGradient(weight, std::move(accumulate),
                                      std::move(prepare));
          if (bias != nullptr) {
            gradients.AddWeightGradient(*bias, [bias, dy] {
              AccumulateColumnSums(dy, Flat(bias->grad));
            });
          }
        }
        if (gradients.Needs(0)) gradients.Accumulate(0, dx.Wait());
      });
}

Variable LinearByParts(Tape& tape, const Variable& x, Parameter& weight) {
  const int64_t parts = weight.value.dim(0);
  const int64_t out = weight.value.dim(1);
  const int64_t in = weight.value.dim(2);
  const auto columns = [](const Tensor& from, int64_t width, int64_t part) {
    return CopySlice(from, -1, part * width, (part + 1) * width);
  };
  const auto matrix = [out, in](const Tensor& from, int64_t part) {
    return from.Slice(part, part + 1).Reshape({out, in});
  };
  // A product of each part, side by side.
  const auto products = [parts, columns, &tape](const Tensor& from,
                                                int64_t from_width,
                                                int64_t width, auto product) {
    Shape shape = from.shape();
    shape.set_dim(-1, parts * width);
    Tensor all = Tensor::Empty(tape.device(), shape, from.dtype(),
                               MemoryCategory::kActivations, "products");
    for (int64_t part = 0; part < parts; ++part) {
      WriteSlice(product(columns(from, from_width, part), part), -1,
                 part * width, all);
    }
    return all;
  };
  Tensor y =
      products(x.value(), in, out, [&](const Tensor& of_part, int64_t part) {
        return MatMul(of_part, matrix(weight.value, part), nullptr,
                      {.transpose_b = true, .label = weight.name});
      });
  return tape.Record(
      "linear by parts", {x}, {&weight}, std::move(y), {x.value()},
      [&weight, parts, out, in, columns, matrix,
       products](Tape::Gradients& gradients) {
        const Tensor dy = gradients.TakeOutput();
        gradients.AddWeightGradient(weight, [&weight, parts, out, in, columns,
                                             matrix, dy,
                                             x = gradients.Saved(0)] {
          for (int64_t part = 0; part < parts; ++part) {
            MatMulAccumulate(columns(dy, out, part), columns(x, in, part),
                             {.transpose_a = true}, matrix(weight.grad, part));
          }
        });
        if (!gradients.Needs(0)) return;
        gradients.Accumulate(
            0, products(dy, out, in, [&](const Tensor& of_part, int64_t part) {
              return MatMul(of_part, matrix(weight.value, part), nullptr,
                            {.label = "linear input gradient"});
            }));
      });
}

Variable AddParameter(Tape& tape, const Variable& x, Parameter& b) {
  return tape.Record(
      "add parameter", {x}, {&b}, AddBroadcast(x.value(), b.value), {},
      [&b](Tape::Gradients& gradients) {
        const Tensor dy = gradients.TakeOutput();
        gradients.AddWeightGradient(b, [&b, dy] {
          AccumulateColumnSums(dy.Reshape({-1, b.grad.num_elements()}),
                               Flat(b.grad));
        });
        gradients.Accumulate(0, dy);
      });
}

Variable Add(Tape& tape, const Variable& a, const Variable& b) {
  return tape.Record("add", {a, b}, {}, Add(a.value(), b.value()), {},
                     [](Tape::Gradients& gradients) {
                       Tensor dy = gradients.TakeOutput();
                       gradients.Accumulate(0, dy);
                       gradients.Accumulate(1, std::move(dy));
                     });
}

Variable AddConstant(Tape& tape, const Variable& x, const Tensor& table) {
  return tape.Record("add constant", {x}, {}, AddBroadcast(x.value(), table),
                     {}, [](Tape::Gradients& gradients) {
                       gradients.Accumulate(0, gradients.TakeOutput());
                     });
}

Variable Activate(Tape& tape, Activation activation, const Variable& x,
                  Keep keep) {
  Variable y = tape.Record(
      "activation", {x}, {}, ActivationForward(activation, x.value()),
      {x.value()}, [activation](Tape::Gradients& gradients) {
        gradients.Accumulate(0,
                             ActivationBackward(activation, gradients.Saved(0),
                                                gradients.TakeOutput()));
      });
  if (keep == Keep::kRecipe) {
    y.set_recipe([activation, x = x.value()] {
      return ActivationForward(activation, x);
    });
  }
  return y;
}

Variable SwiGlu(Tape& tape, const Variable& x) {
  return tape.Record(
      "swiglu", {x}, {}, SwiGluForward(x.value()), {x.value()},
      [](Tape::Gradients& gradients) {
        gradients.Accumulate(
            0, SwiGluBackward(gradients.Saved(0), gradients.TakeOutput()));
      });
}

Variable GatedResidual(Tape& tape, const Variable& x, const Variable& gate,
                       const Variable& y) {
  return tape.Record("gated residual", {x, gate, y}, {},
                     GatedResidualForward(x.value(), gate.value(), y.value()),
                     {gate.value(), y.value()}, [](Tape::Gradients& gradients) {
                       Tensor dout = gradients.TakeOutput();
                       GatedResidualGradients result = GatedResidualBackward(
                           gradients.Saved(0), gradients.Saved(1), dout);
                       gradients.Accumulate(1, std::move(result.gate));
                       gradients.Accumulate(2, std::move(result.y));
                       gradients.Accumulate(0, std::move(dout));
                     });
}

Variable NormModulate(Tape& tape, NormKind kind, const Variable& x,
                      const Variable& scale, const Variable& shift, double eps,
                      Keep keep) {
  NormResult forward =
      NormModulateForward(kind, x.value(), &scale.value(), &shift.value(), eps);
  Variable y =
      tape.Record("norm modulate", {x, scale, shift}, {}, forward.out,
                  {x.value(), scale.value(), forward.mean, forward.rstd},
                  [kind](Tape::Gradients& gradients) {
                    const NormResult saved{Tensor(), gradients.Saved(2),
                                           gradients.Saved(3)};
                    NormModulateGradients result = NormModulateBackward(
                        kind, gradients.Saved(0), saved, &gradients.Saved(1),
                        gradients.TakeOutput(), gradients.TakePending(0));
                    gradients.Accumulate(0, std::move(result.x));
                    gradients.Accumulate(1, std::move(result.scale));
                    gradients.Accumulate(2, std::move(result.shift));
                  });
  if (keep == Keep::kRecipe) {
    y.set_recipe([kind, eps, x = x.value(), scale = scale.value(),
                  shift = shift.value()] {
      return NormModulateForward(kind, x, &scale, &shift, eps).out;
    });
  }
  return y;
}

Variable Norm(Tape& tape, NormKind kind, const Variable& x, Parameter* weight,
              Parameter* bias, double eps) {
  if (weight == nullptr) {
    const Tensor x3 = x.value().rank() == 3
                          ? x.value()
                          : x.value().Reshape({1, -1, x.value().dim(-1)});
    NormResult forward = NormModulateForward(kind, x3, nullptr, nullptr, eps);
    Tensor y = forward.out.Reshape(x.value().shape());
    return tape.Record(
        "norm", {x}, {}, std::move(y), {x3, forward.mean, forward.rstd},
        [kind, shape = x.value().shape()](Tape::Gradients& gradients) {
          const NormResult saved{Tensor(), gradients.Saved(1),
                                 gradients.Saved(2)};
          const Tensor& x3 = gradients.Saved(0);
          NormModulateGradients result = NormModulateBackward(
              kind, x3, saved, nullptr,
              gradients.TakeOutput().Reshape(x3.shape()), Tensor());
          gradients.Accumulate(0, result.x.Reshape(shape));
        });
  }
  NormResult forward =
      NormAffineForward(kind, x.value(), weight->value,
                        bias != nullptr ? &bias->value : nullptr, eps);
  Tensor y = std::move(forward.out);
  std::vector<Parameter*> parameters = {weight};
  if (bias != nullptr) parameters.push_back(bias);
  return tape.Record("norm affine", {x}, parameters, std::move(y),
                     {x.value(), forward.mean, forward.rstd},
                     [kind, weight, bias](Tape::Gradients& gradients) {
                       const NormResult saved{Tensor(), gradients.Saved(1),
                                              gradients.Saved(2)};
                       // One pass makes dx and both parameter gradients.
                       const Tensor weight_grad =
                           gradients.NewContribution(weight);
                       const Tensor bias_grad = gradients.NewContribution(bias);
                       Tensor dx = NormAffineBackward(
                           kind, gradients.Saved(0), saved, weight->value,
                           gradients.TakeOutput(), gradients.TakePending(0),
                           weight_grad.defined() ? &weight_grad : nullptr,
                           bias_grad.defined() ? &bias_grad : nullptr);
                       gradients.AddContribution(weight, weight_grad);
                       gradients.AddContribution(bias, bias_grad);
                       gradients.Accumulate(0, std::move(dx));
                     });
}

Variable Reshape(Tape& tape, const Variable& x, const Shape& shape) {
  return tape.Record("reshape", {x}, {}, x.value().Reshape(shape), {},
                     [before = x.value().shape()](Tape::Gradients& gradients) {
                       gradients.Accumulate(
                           0, gradients.TakeOutput().Reshape(before));
                     });
}

std::vector<Variable> SplitColumns(Tape& tape, const Variable& x, int parts) {
  const int64_t width = x.value().dim(-1) / parts;
  CHECK_EQ(width * parts, x.value().dim(-1));
  std::vector<Tensor> outputs;
  for (int i = 0; i < parts; ++i) {
    outputs.push_back(CopySlice(x.value(), -1, i * width, (i + 1) * width));
  }
  return tape.RecordMany(
      "split", {x}, {}, std::move(outputs), {},
      [parts, width, shape = x.value().shape(), dtype = x.value().dtype(),
       device = &tape.device()](Tape::Gradients& gradients) {
        const Tensor dx =
            Tensor::Zeros(*device, shape, dtype, MemoryCategory::kActivations,
                          "split gradient");
        for (int i = 0; i < parts; ++i) {
          if (gradients.Output(i).defined()) {
            WriteSlice(gradients.Output(i), -1, i * width, dx);
          }
        }
        gradients.Accumulate(0, dx);
      });
}

Variable MaskTokens(Tape& tape, const Variable& x, int64_t valid) {
  const auto masked = [valid](const Tensor& from) {
    const Tensor to = from.Clone("masked tokens");
    ZeroSlice(to, 1, valid, to.dim(1));
    return to;
  };
  return tape.Record("mask", {x}, {}, masked(x.value()), {},
                     [masked](Tape::Gradients& gradients) {
                       gradients.Accumulate(0, masked(gradients.TakeOutput()));
                     });
}

Variable ConcatTokens(Tape& tape, const Variable& first,
                      const Variable& second) {
  const Tensor& a = first.value();
  const Tensor& b = second.value();
  Shape shape = a.shape();
  shape.set_dim(1, a.dim(1) + b.dim(1));
  Tensor y = Tensor::Empty(tape.device(), shape, a.dtype(),
                           MemoryCategory::kActivations, "concat");
  WriteSlice(a, 1, 0, y);
  WriteSlice(b, 1, a.dim(1), y);
  return tape.Record("concat", {first, second}, {}, std::move(y), {},
                     [boundary = a.dim(1)](Tape::Gradients& gradients) {
                       const Tensor dy = gradients.TakeOutput();
                       if (gradients.Needs(0)) {
                         gradients.Accumulate(0, CopySlice(dy, 1, 0, boundary));
                       }
                       if (gradients.Needs(1)) {
                         gradients.Accumulate(
                             1, CopySlice(dy, 1, boundary, dy.dim(1)));
                       }
                     });
}

Variable SliceTokens(Tape& tape, const Variable& x, int64_t begin,
                     int64_t end) {
  return tape.Record(
      "slice", {x}, {}, CopySlice(x.value(), 1, begin, end), {},
      [begin, input_shape = x.value().shape()](Tape::Gradients& gradients) {
        const Tensor dy = gradients.TakeOutput();
        const Tensor dx =
            Tensor::Zeros(dy.device(), input_shape, dy.dtype(),
                          MemoryCategory::kActivations, "slice gradient");
        WriteSlice(dy, 1, begin, dx);
        gradients.Accumulate(0, dx);
      });
}

Variable EmbeddingLookup(Tape& tape, Parameter& table, const Tensor& indices) {
  return tape.Record(
      "embedding", {}, {&table}, GatherRows(table.value, indices), {indices},
      [&table](Tape::Gradients& gradients) {
        const Tensor rows = gradients.TakeOutput();
        const Tensor indices = gradients.Saved(0);
        gradients.AddWeightGradient(table, [&table, rows, indices] {
          ScatterAddRows(rows, indices, table.grad);
        });
      });
}

Variable SquaredErrorLoss(Tape& tape, const Variable& prediction,
                          const Tensor& target) {
  return tape.Record(
      "squared error", {prediction}, {},
      SquaredErrorSum(prediction.value(), target), {prediction.value(), target},
      [](Tape::Gradients& gradients) {
        gradients.Accumulate(
            0, SquaredErrorBackward(gradients.Saved(0), gradients.Saved(1),
                                    gradients.LossGradient()));
      });
}

Variable CrossEntropyLoss(Tape& tape, const Variable& logits,
                          const Tensor& labels, double smoothing) {
  return tape.Record(
      "cross entropy", {logits}, {},
      CrossEntropySum(logits.value(), labels, smoothing),
      {logits.value(), labels}, [smoothing](Tape::Gradients& gradients) {
        gradients.Accumulate(
            0, CrossEntropyBackward(gradients.Saved(0), gradients.Saved(1),
                                    gradients.LossGradient(), smoothing));
      });
}

}  // namespace trireme
