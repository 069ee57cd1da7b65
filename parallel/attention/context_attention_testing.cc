#include "parallel/attention/context_attention_testing.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "runtime/autograd/functions.h"
#include "runtime/core/philox.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

template <typename T>
T To(double x) {
  if constexpr (std::is_same_v<T, double>) {
    return x;
  } else {
    return T(static_cast<float>(x));
  }
}

HostArray Random(const ContextCase& shape, int64_t tokens, int64_t width,
                 uint64_t seed) {
  HostArray array{tokens, width, {}};
  const RandomStream random({.seed = seed});
  DispatchFloating(shape.dtype, [&]<typename T>(T) {
    for (int64_t i = 0; i < shape.batch * tokens * width; ++i) {
      array.values.push_back(static_cast<double>(To<T>(random.Normal(i))));
    }
  });
  return array;
}

Tensor ToTensor(Device& device, const ContextCase& shape,
                const HostArray& array, DType dtype) {
  const Tensor x =
      Tensor::Empty(device, {shape.batch, array.tokens, array.width}, dtype);
  if (device.dry()) return x;
  DispatchFloating(dtype, [&]<typename T>(T) {
    for (int64_t i = 0; i < x.num_elements(); ++i) {
      x.data<T>()[i] = To<T>(array.values[i]);
    }
  });
  return x;
}

HostArray ToArray(const Tensor& x) {
  HostArray array{x.dim(1), x.dim(2), {}};
  DispatchFloating(x.dtype(), [&]<typename T>(T) {
    for (const T& value : x.ToVector<T>()) {
      array.values.push_back(static_cast<double>(value));
    }
  });
  return array;
}

Tensor Counts(Device& device, const std::vector<int32_t>& counts) {
  return Tensor::FromValues<int32_t>(
      device, {static_cast<int64_t>(counts.size())}, counts);
}

}  // namespace

ContextProblem::ContextProblem(const ContextCase& shape)
    : image_qkv(Random(shape, shape.tokens(), shape.qkv_width(), 1)),
      text_qkv(Random(shape, shape.text, shape.qkv_width(), 2)),
      image_seed(Random(shape, shape.tokens(), shape.out_width(), 3)),
      text_seed(Random(shape, shape.text, shape.out_width(), 4)) {
  for (int64_t i = 0; i < shape.batch; ++i) {
    for (int64_t token = shape.valid; token < shape.tokens(); ++token) {
      // Padding that is not masked would rule every softmax.
      for (int64_t j = 0; j < shape.qkv_width(); ++j) {
        image_qkv.at(i, token, j) *= 64;
      }
      for (int64_t j = 0; j < shape.out_width(); ++j)
        image_seed.at(i, token, j) = 0;
    }
  }
}

// Real image tokens, then text: what is masked lies at the end.
ContextResults ReferenceResults(const ContextCase& shape,
                                const ContextProblem& problem,
                                const ContextUses& uses) {
  CpuDevice device(int64_t{1} << 30);
  Tape tape(device);
  const auto tensor = [&](const HostArray& array) {
    return ToTensor(device, shape, array, DType::kFloat64);
  };
  const auto real = [&](const HostArray& array) {
    return tensor(array.Part(shape.batch, 0, shape.valid));
  };
  const Variable image = tape.Leaf(real(problem.image_qkv));
  std::vector<Variable> outputs;
  std::vector<Tensor> seeds;
  ContextResults results;
  if (shape.text == 0) {
    AttentionMask mask;
    if (shape.causal) mask.diagonal = 0;
    if (!shape.sequences.empty()) {
      auto offsets = std::make_shared<std::vector<int64_t>>(shape.sequences);
      for (int64_t& offset : *offsets) offset = std::min(offset, shape.valid);
      mask.query_offsets = mask.key_offsets = std::move(offsets);
    }
    outputs = {
        SelfAttention(tape, image, kHeadDim, {}, mask, shape.queries_per_key)};
    seeds = {real(problem.image_seed)};
    results.image = ToArray(outputs[0].value());
    tape.Backward(outputs, seeds, Tape::WeightGradients::kImmediate);
    results.image_grad = ToArray(tape.TakeGradient(image));
    return results;
  }
  const Variable text = tape.Leaf(tensor(problem.text_qkv));
  std::vector<int32_t> counts;
  for (int64_t i = 0; i < shape.batch; ++i) {
    counts.push_back(static_cast<int32_t>(
        shape.valid +
        (shape.text_counts.empty() ? shape.text : shape.text_counts[i])));
  }
  const Tensor count_tensor = Counts(device, counts);
  const Variable joint =
      SelfAttention(tape, ConcatTokens(tape, image, text), kHeadDim, {},
                    {.key_counts = count_tensor}, shape.queries_per_key);
  outputs = {SliceTokens(tape, joint, 0, shape.valid),
             SliceTokens(tape, joint, shape.valid, shape.valid + shape.text)};
  seeds = {real(problem.image_seed), tensor(problem.text_seed)};
  if (!uses.image) seeds[0].FillZero();
  if (!uses.text) seeds[1].FillZero();
  results.image = ToArray(outputs[0].value());
  results.text = ToArray(outputs[1].value());
  tape.Backward(outputs, seeds, Tape::WeightGradients::kImmediate);
  results.image_grad = ToArray(tape.TakeGradient(image));
  results.text_grad = ToArray(tape.TakeGradient(text));
  return results;
}

ContextRankGroups::ContextRankGroups(CommunicatorFactory& factory,
                                     const ContextCase& shape) {
  const int u = factory.world_rank() % shape.ulysses;
  const int r = factory.world_rank() / shape.ulysses;
  std::vector<int> ranks;
  for (int i = 0; i < shape.ulysses; ++i) {
    ranks.push_back(r * shape.ulysses + i);
  }
  ulysses = factory.Create(ranks, "ulysses");
  ranks.clear();
  for (int i = 0; i < shape.ring; ++i) ranks.push_back(i * shape.ulysses + u);
  ring = factory.Create(ranks, "ring");
}

ContextResults RunContextRank(Device& device, const ContextRankGroups& groups,
                              int rank, const ContextCase& shape,
                              const ContextProblem& problem,
                              const ContextUses& uses) {
  const auto local = [&](const HostArray& array) {
    return ToTensor(
        device, shape,
        array.Part(shape.batch, rank * shape.chunk, (rank + 1) * shape.chunk),
        shape.dtype);
  };
  Tape tape(device);
  ContextAttentionInputs inputs;
  inputs.image_qkv = tape.Leaf(local(problem.image_qkv));
  ContextAttentionKeys keys{.valid_tokens = shape.valid,
                            .causal = shape.causal};
  if (!shape.sequences.empty()) {
    keys.sequences = std::make_shared<std::vector<int64_t>>(shape.sequences);
  }
  if (shape.text > 0) {
    inputs.text_qkv =
        tape.Leaf(ToTensor(device, shape, problem.text_qkv, shape.dtype));
    if (!shape.text_counts.empty()) {
      keys.text_counts = Counts(device, shape.text_counts);
    }
  }
  const ContextAttentionOutputs out = ContextAttention(
      tape, groups.get(), inputs, kHeadDim, keys, shape.queries_per_key);
  ContextResults results;
  results.image = ToArray(out.image.value());
  std::vector<Variable> outputs;
  std::vector<Tensor> seeds;
  if (uses.image) {
    outputs.push_back(out.image);
    seeds.push_back(local(problem.image_seed));
  }
  if (shape.text > 0) {
    results.text = ToArray(out.text.value());
    if (uses.text) {
      outputs.push_back(out.text);
      seeds.push_back(ToTensor(device, shape, problem.text_seed, shape.dtype));
    }
  }
  tape.Backward(outputs, seeds, Tape::WeightGradients::kImmediate);
  results.image_grad = ToArray(tape.TakeGradient(inputs.image_qkv));
  if (shape.text > 0) {
    results.text_grad = ToArray(tape.TakeGradient(inputs.text_qkv));
  }
  return results;
}

}  // namespace trireme
