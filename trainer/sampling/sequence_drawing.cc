// Sampler's way to draw sequences: a token is drawn for all samples of a batch,
// then the next.

#include <array>
#include <utility>

#include "models/transformer/key_value_cache.h"
#include "runtime/device/host.h"
#include "runtime/ops/pointwise.h"
#include "trainer/sampling/evaluation.h"
#include "trainer/sampling/sampled_sequences.h"
#include "trainer/sampling/sampler.h"

namespace trireme {

Tensor Sampler::NextLogits(Batch batch, KeyValueCache& cache) {
  Tensor logits;
  const Evaluation evaluation(logits, &cache);
  const Shape shape = {batch.size(), setup_.family->grammar()->vocabulary()};
  model_->inputs().Set(std::move(batch), evaluation);
  forward_->Run(/*microbatch=*/0);
  cache.Advance();
  if (logits.defined()) {
    if (logits.dtype() != predicted_type()) {
      logits = Cast(logits, predicted_type());
    }
    logits = logits.Reshape(shape);
  }
  logits = PassAround(std::move(logits), shape);
  return predicted_type() == DType::kFloat32 ? logits
                                             : Cast(logits, DType::kFloat32);
}

std::vector<float> Sampler::Continue(const SamplerOptions& options,
                                     uint64_t seed, int64_t begin,
                                     const Conditions& conditions) {
  const FieldSpec drawn = setup_.family->samples();
  const int64_t n = conditions.with.size(), length = drawn.shape.dim(0);
  const Device& device = model_->device();
  SampledSequences sequences(*setup_.family->grammar(), options.tokens, seed,
                             begin, n, length);
  KeyValueCache cache(length);
  for (int64_t place = 0; place < length && !Stops(); ++place) {
    Batch batch = conditions.with;
    batch.fields[drawn.name].values = Tensor::FromValues<int32_t>(
        model_->device(), {n}, sequences.LastTokens());
    const Tensor logits = NextLogits(std::move(batch), cache);
    if (!device.dry()) sequences.Add(Download<float>(logits));
    // Replicas that gather parameters together go on together. A dry device, or
    // one that is out of memory, is done after a second token, which takes what
    // every later one does.
    std::array<int64_t, 2> any = {!sequences.done(), device.dry() && place > 0};
    control().Max(any, "sequences that go on");
    if (any[0] == 0 || any[1] != 0) break;
  }
  return sequences.Padded();
}

}  // namespace trireme
