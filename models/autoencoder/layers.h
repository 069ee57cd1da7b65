// What the halves of an autoencoder are made of. Pictures lie with channels
// last, [n, height, width, channels]; weights are diffusers'.

#ifndef TRIREME_MODELS_AUTOENCODER_LAYERS_H_
#define TRIREME_MODELS_AUTOENCODER_LAYERS_H_

#include <cstdint>
#include <optional>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "models/weights/folder_tensors.h"
#include "runtime/device/tensor.h"
#include "runtime/ops/activation.h"
#include "runtime/ops/convolution.h"

namespace trireme {

// Gives layers their weights, by name.
class AutoencoderWeights {
 public:
  // Without `files`: weights of the right sizes and no values, for dry devices.
  AutoencoderWeights(Device& device, DType dtype, const FolderTensors* files)
      : device_(device), dtype_(dtype), files_(files) {}

  // While false, weights are looked for and not read: what they belong to is
  // not used.
  void set_reading(bool reading) { reading_ = reading; }

  // `older`: the name in files that were written before diffusers renamed it.
  Tensor Take(const std::string& name, const Shape& shape,
              const std::string& older = "");

  // Errors: a tensor that is missing or misshapen, and one that nobody took.
  absl::Status Finish() const;

 private:
  Device& device_;
  DType dtype_;
  const FolderTensors* files_;
  bool reading_ = true;
  std::set<std::string> taken_;
  absl::Status status_;
};

// A convolution that keeps height and width, unless `options` say otherwise.
class ConvolutionLayer {
 public:
  ConvolutionLayer(AutoencoderWeights& weights, const std::string& name,
                   int64_t in, int64_t out, int64_t kernel);
  ConvolutionLayer(AutoencoderWeights& weights, const std::string& name,
                   int64_t in, int64_t out, int64_t kernel,
                   const ConvolutionOptions& options);

  Tensor operator()(const Tensor& x) const {
    return Convolve(x, weight_, &bias_, options_);
  }

 private:
  Tensor weight_;
  Tensor bias_;
  ConvolutionOptions options_;
};

class GroupNormLayer {
 public:
  GroupNormLayer(AutoencoderWeights& weights, const std::string& name,
                 int64_t channels, int64_t groups);

  Tensor operator()(const Tensor& x, Activation activation) const;

 private:
  Tensor weight_;
  Tensor bias_;
  int64_t groups_;
};

// x + conv(silu(norm(conv(silu(norm(x)))))), x through a product by pixel where
// the number of channels changes.
class ResidualBlock {
 public:
  ResidualBlock(AutoencoderWeights& weights, const std::string& name,
                int64_t in, int64_t out, int64_t groups);

  Tensor operator()(const Tensor& x) const;

 private:
  GroupNormLayer norm1_;
  ConvolutionLayer conv1_;
  GroupNormLayer norm2_;
  ConvolutionLayer conv2_;
  std::optional<ConvolutionLayer> shortcut_;
};

// x + out(attention(q, k, v of norm(x))) over all pixels, with one head.
class AttentionBlock {
 public:
  AttentionBlock(AutoencoderWeights& weights, const std::string& name,
                 int64_t channels, int64_t groups);

  Tensor operator()(const Tensor& x) const;

 private:
  struct Linear {
    Linear(AutoencoderWeights& weights, const std::string& name,
           const std::string& older, int64_t channels);
    Tensor operator()(const Tensor& x) const;

    Tensor weight;
    Tensor bias;
  };

  GroupNormLayer norm_;
  Linear q_;
  Linear k_;
  Linear v_;
  Linear out_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_AUTOENCODER_LAYERS_H_
