#include "models/autoencoder/layers.h"

#include <cmath>

#include "models/autoencoder/autoencoder_config.h"
#include "parallel/sharding/logical_tensors.h"
#include "runtime/core/status.h"
#include "runtime/ops/attention.h"
#include "runtime/ops/group_norm.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

constexpr double kEps = 1e-6;

}  // namespace

Tensor AutoencoderWeights::Take(const std::string& name, const Shape& shape,
                                const std::string& older) {
  if (files_ != nullptr) {
    const std::string& stored =
        !older.empty() && files_->Has(older) ? older : name;
    taken_.insert(stored);
    status_.Update(files_->Check(stored, shape));
    if (!status_.ok() || !reading_) return Tensor();
    const Tensor tensor = Tensor::Empty(device_, shape, dtype_,
                                        MemoryCategory::kParameters, name);
    const TensorPart part = {.name = stored,
                             .global_shape = shape,
                             .local = tensor,
                             .end = shape.num_elements()};
    if (!device_.dry()) status_.Update(ReadParts(*files_, {&part, 1}));
    return tensor;
  }
  return reading_ ? Tensor::Empty(device_, shape, dtype_,
                                  MemoryCategory::kParameters, name)
                  : Tensor();
}

absl::Status AutoencoderWeights::Finish() const {
  if (!status_.ok()) return status_;
  RETURN_IF_ERROR(device_.status());
  return files_ == nullptr ? absl::OkStatus()
                           : files_->CheckKnown(taken_, kAutoencoderClass);
}

ConvolutionLayer::ConvolutionLayer(AutoencoderWeights& weights,
                                   const std::string& name, int64_t in,
                                   int64_t out, int64_t kernel)
    : ConvolutionLayer(
          weights, name, in, out, kernel,
          {.padding_before = kernel / 2, .padding_after = kernel / 2}) {}

ConvolutionLayer::ConvolutionLayer(AutoencoderWeights& weights,
                                   const std::string& name, int64_t in,
                                   int64_t out, int64_t kernel,
                                   const ConvolutionOptions& options)
    : weight_(weights.Take(name + ".weight", {out, in, kernel, kernel})),
      bias_(weights.Take(name + ".bias", {out})),
      options_(options) {}

GroupNormLayer::GroupNormLayer(AutoencoderWeights& weights,
                               const std::string& name, int64_t channels,
                               int64_t groups)
    : weight_(weights.Take(name + ".weight", {channels})),
      bias_(weights.Take(name + ".bias", {channels})),
      groups_(groups) {}

Tensor GroupNormLayer::operator()(const Tensor& x,
                                  Activation activation) const {
  return GroupNorm(x, groups_, weight_, bias_, kEps, activation);
}

ResidualBlock::ResidualBlock(AutoencoderWeights& weights,
                             const std::string& name, int64_t in, int64_t out,
                             int64_t groups)
    : norm1_(weights, name + ".norm1", in, groups),
      conv1_(weights, name + ".conv1", in, out, 3),
      norm2_(weights, name + ".norm2", out, groups),
      conv2_(weights, name + ".conv2", out, out, 3) {
  if (in != out) {
    shortcut_.emplace(weights, name + ".conv_shortcut", in, out, 1);
  }
}

Tensor ResidualBlock::operator()(const Tensor& x) const {
  // Each tensor goes when the next is there: at full size a few are most of the
  // memory.
  Tensor y = norm1_(x, Activation::kSilu);
  y = conv1_(y);
  y = norm2_(y, Activation::kSilu);
  y = conv2_(y);
  AddInPlace(shortcut_.has_value() ? (*shortcut_)(x) : x, y);
  return y;
}

AttentionBlock::Linear::Linear(AutoencoderWeights& weights,
                               const std::string& name,
                               const std::string& older, int64_t channels)
    : weight(weights.Take(name + ".weight", {channels, channels},
                          older + ".weight")),
      bias(weights.Take(name + ".bias", {channels}, older + ".bias")) {}

Tensor AttentionBlock::Linear::operator()(const Tensor& x) const {
  return MatMul(x, weight, &bias, {.transpose_b = true});
}

AttentionBlock::AttentionBlock(AutoencoderWeights& weights,
                               const std::string& name, int64_t channels,
                               int64_t groups)
    : norm_(weights, name + ".group_norm", channels, groups),
      q_(weights, name + ".to_q", name + ".query", channels),
      k_(weights, name + ".to_k", name + ".key", channels),
      v_(weights, name + ".to_v", name + ".value", channels),
      out_(weights, name + ".to_out.0", name + ".proj_attn", channels) {}

Tensor AttentionBlock::operator()(const Tensor& x) const {
  const int64_t channels = x.dim(3);
  const Tensor normed = norm_(x, Activation::kNone)
                            .Reshape({x.dim(0), x.dim(1) * x.dim(2), channels});
  const Tensor q = q_(normed), k = k_(normed), v = v_(normed);
  const auto one_head = [&](const Tensor& tensor) {
    return PackedHeads(tensor, 1, 0, channels);
  };
  const Tensor attended =
      AttentionForward(one_head(q), one_head(k), one_head(v),
                       1 / std::sqrt(static_cast<double>(channels)))
          .out;
  const Tensor y = out_(attended).Reshape(x.shape());
  AddInPlace(x, y);
  return y;
}

}  // namespace trireme
