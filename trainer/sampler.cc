#include "trainer/sampler.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "models/data/field_readers.h"
#include "models/objective/objective.h"
#include "runtime/autograd/tape.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

// Samples per forward pass: enough to fill the processor, few enough that
// activations stay small.
constexpr int64_t kSampleBatch = 40;

Tensor In(const Tensor& tensor, DType dtype) {
  return tensor.dtype() == dtype ? tensor : Cast(tensor, dtype);
}

// Gives a model what it is to be evaluated at, and keeps what it predicts.
class Evaluation final : public Objective {
 public:
  Evaluation(double time, Tensor& prediction)
      : time_(static_cast<float>(time)), prediction_(prediction) {}

  ModelInputs Prepare(const Batch& batch, std::string_view field,
                      DType dtype) const override {
    const std::vector<float> times(batch.size(), time_);
    Device& device = batch[field].device();
    return {.x = In(batch[field], dtype),
            .times = In(
                Tensor::FromValues<float>(device, {batch.size()}, times),
                dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32)};
  }
  Tensor Condition(const Batch& batch, std::string_view field,
                   int32_t /*none*/) const override {
    return batch[field];
  }
  void AddLosses(ForwardContext& /*context*/, const ShardedVariable& prediction,
                 const Tensor& /*target*/,
                 int64_t /*elements*/) const override {
    prediction_ = prediction.value();
  }

 private:
  float time_;
  Tensor& prediction_;
};

Tensor ToTensor(Device& device, const FieldSpec& spec, int64_t samples,
                const FieldValues& values) {
  return std::visit(
      [&]<typename T>(const std::vector<T>& elements) {
        return Tensor::FromValues<T>(device, spec.ShapeOf(samples), elements);
      },
      values);
}

}  // namespace

Sampler::Sampler(const TrainingSetup& setup, Device& device)
    : setup_(setup),
      model_(setup, ProcessGrid(), world_, {},
             {{{.blocks = {0, setup.family->Shape().layers},
                .microbatch_size = 0}}},
             device) {}

absl::Status Sampler::LoadWeights(const std::string& path) {
  ASSIGN_OR_RETURN(const auto file, SafetensorsFile::Open(path));
  for (const auto& parameter : model_.part().store->parameters()) {
    ASSIGN_OR_RETURN(const Tensor whole,
                     ReadTensor(*file, parameter->name, model_.device()));
    if (whole.shape() != parameter->global_shape) {
      return FailedPrecondition("{}: tensor '{}' has shape {}, expected {}",
                                path, parameter->name, whole.shape().ToString(),
                                parameter->global_shape.ToString());
    }
    parameter->value.CopyFrom(In(whole, parameter->value.dtype()));
  }
  return model_.status();
}

Tensor Sampler::Velocity(const Tensor& x, double time, Batch batch) {
  batch.fields[setup_.family->samples().name].values = x;
  Tensor prediction;
  const Evaluation evaluation(time, prediction);
  model_.inputs().Set(std::move(batch), evaluation);
  Tape tape(model_.device(), Tape::Mode::kInference);
  ForwardContext context{tape, model_.context()};
  std::vector<ShardedVariable> state;
  for (int unit = 0; unit < model_.part().chunk->num_units(); ++unit) {
    state = model_.part().chunk->RunUnit(context, /*microbatch=*/0, unit,
                                         std::move(state));
  }
  return setup_.family->ToSamples(In(prediction, DType::kFloat32));
}

absl::StatusOr<std::vector<float>> Sampler::Draw(
    const SamplerOptions& options, uint64_t seed,
    std::span<const Sample> prompts) {
  const ModelFamily& family = *setup_.family;
  const FieldSpec drawn = family.samples();
  const int64_t elements = drawn.shape.num_elements();
  const auto count = static_cast<int64_t>(prompts.size());
  std::vector<float> samples;
  samples.reserve(count * elements);
  for (int64_t begin = 0; begin < count; begin += kSampleBatch) {
    const int64_t n = std::min(kSampleBatch, count - begin);
    std::vector<float> noise(n * elements);
    for (int64_t i = 0; i < n; ++i) {
      RandomStream({.seed = seed,
                    .sample = static_cast<uint64_t>(begin + i),
                    .purpose = RandomPurpose::kSampling})
          .FillNormal(0,
                      std::span<float>(noise.data() + i * elements, elements));
    }
    Batch with, without;
    with.samples.assign(n, 0);
    without.samples = with.samples;
    for (const FieldSpec& spec : AllFields(family)) {
      if (spec.name == drawn.name) continue;
      FieldValues values = ZeroValues(spec, n);
      for (int64_t i = 0; i < n; ++i) {
        RETURN_IF_ERROR(
            ReaderOf(spec).read(prompts[begin + i], spec, i, values));
      }
      with.fields[spec.name].values =
          ToTensor(model_.device(), spec, n, values);
      const std::optional<int32_t> none = family.NoCondition(spec.name);
      if (none.has_value()) values = std::vector<int32_t>(n, *none);
      without.fields[spec.name].values =
          none.has_value() ? ToTensor(model_.device(), spec, n, values)
                           : with.fields[spec.name].values;
    }
    const Tensor start =
        Tensor::FromValues<float>(model_.device(), drawn.ShapeOf(n), noise);
    const Tensor result = SampleFlow(
        options,
        [&](const Tensor& x, double time, bool conditional) {
          return Velocity(x, time, conditional ? with : without);
        },
        start);
    RETURN_IF_ERROR(model_.status());
    const std::vector<float> values = result.ToVector<float>();
    samples.insert(samples.end(), values.begin(), values.end());
  }
  return samples;
}

}  // namespace trireme
