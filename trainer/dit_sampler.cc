#include "trainer/dit_sampler.h"

#include <algorithm>
#include <utility>

#include "runtime/checkpoint/safetensors.h"
#include "runtime/comm/single.h"
#include "runtime/core/status.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

// Pictures per forward pass: enough to fill the processor, few enough that
// activations stay small.
constexpr int64_t kSampleBatch = 40;

}  // namespace

DitSampler::DitSampler(const TrainingSetup& setup, Device& device)
    : setup_(setup), device_(device) {
  SingleWorld world;
  communicators_ = std::make_unique<Communicators>(world, grid_);
  context_ = std::make_unique<ParallelContext>(device_, grid_, *communicators_);
  store_ = std::make_unique<ParameterStore>(device_, setup_.dtype, setup_.seed);
  part_ = std::make_unique<DitPart>(
      *store_, grid_, setup_.model,
      DitPartOptions{.blocks = {0, setup_.model.layers}});
}

absl::Status DitSampler::LoadWeights(const std::string& path) {
  ASSIGN_OR_RETURN(const auto file, SafetensorsFile::Open(path));
  for (const auto& parameter : store_->parameters()) {
    ASSIGN_OR_RETURN(const Tensor whole,
                     ReadTensor(*file, parameter->name, device_));
    if (whole.shape() != parameter->global_shape) {
      return FailedPrecondition("{}: tensor '{}' has shape {}, expected {}",
                                path, parameter->name, whole.shape().ToString(),
                                parameter->global_shape.ToString());
    }
    parameter->value.CopyFrom(whole.dtype() == parameter->value.dtype()
                                  ? whole
                                  : Cast(whole, parameter->value.dtype()));
  }
  return device_.status();
}

Tensor DitSampler::Velocity(const Tensor& x, double sigma,
                            const DitInputs& conditions,
                            const Tensor& text_counts) {
  Tape tape(device_, Tape::Mode::kInference);
  ForwardContext context{tape, *context_};
  const ImageSpec& image = setup_.model.image;
  const auto in = [](const Tensor& tensor, DType dtype) {
    return tensor.dtype() == dtype ? tensor : Cast(tensor, dtype);
  };
  DitInputs inputs = conditions;
  inputs.patches = Patchify(in(x, setup_.dtype), setup_.model.patch);
  const std::vector<float> sigmas(x.dim(0), static_cast<float>(sigma));
  inputs.sigmas =
      in(Tensor::FromValues<float>(device_, {x.dim(0)}, sigmas),
         setup_.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32);
  const Tensor prediction =
      part_->Predict(context, inputs, text_counts).value();
  return Unpatchify(in(prediction, DType::kFloat32), setup_.model.patch,
                    image.channels, image.height, image.width);
}

absl::StatusOr<std::vector<float>> DitSampler::Sample(
    const SamplerOptions& options, uint64_t seed, int64_t count,
    const SampleConditions& conditions) {
  const DitConfig& model = setup_.model;
  const int64_t elements =
      model.image.channels * model.image.height * model.image.width;
  const int64_t text_elements = model.text_tokens * model.text_width;
  std::vector<float> pictures;
  pictures.reserve(count * elements);
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
    DitInputs with, without;
    Tensor counts, no_counts;
    if (model.classes > 0) {
      with.labels = Tensor::FromValues<int32_t>(
          device_, {n},
          std::span<const int32_t>(conditions.labels.data() + begin, n));
      const std::vector<int32_t> none(n, static_cast<int32_t>(model.classes));
      without.labels = Tensor::FromValues<int32_t>(device_, {n}, none);
    }
    if (model.text_tokens > 0) {
      const Tensor text = Tensor::FromValues<float>(
          device_, {n, model.text_tokens, model.text_width},
          std::span<const float>(conditions.text.data() + begin * text_elements,
                                 n * text_elements));
      with.text =
          setup_.dtype == DType::kFloat32 ? text : Cast(text, setup_.dtype);
      without.text = with.text;
      counts = Tensor::FromValues<int32_t>(
          device_, {n},
          std::span<const int32_t>(conditions.text_counts.data() + begin, n));
      no_counts = Tensor::Zeros(device_, {n}, DType::kInt32);
    }
    const Tensor start = Tensor::FromValues<float>(
        device_,
        {n, model.image.channels, model.image.height, model.image.width},
        noise);
    const Tensor result = SampleFlow(
        options,
        [&](const Tensor& x, double sigma, bool conditional) {
          return Velocity(x, sigma, conditional ? with : without,
                          conditional ? counts : no_counts);
        },
        start);
    RETURN_IF_ERROR(device_.status());
    const std::vector<float> values = result.ToVector<float>();
    pictures.insert(pictures.end(), values.begin(), values.end());
  }
  return pictures;
}

}  // namespace trireme
