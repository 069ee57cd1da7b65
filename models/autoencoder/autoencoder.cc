#include "models/autoencoder/autoencoder.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

// Between which diffusers keeps the logarithm of a variance.
constexpr double kLeastLogVariance = -30;
constexpr double kMostLogVariance = 20;

// Residual blocks at one size of the picture, and what leads to the next size.
struct Level {
  std::vector<ResidualBlock> blocks;
  std::optional<ConvolutionLayer> resample;
};

Tensor ChannelsLast(const Tensor& pictures) {
  return Patchify(pictures, 1)
      .Reshape(
          {pictures.dim(0), pictures.dim(2), pictures.dim(3), pictures.dim(1)});
}

Tensor ChannelsFirst(const Tensor& x) {
  return Unpatchify(x.Reshape({x.dim(0), x.dim(1) * x.dim(2), x.dim(3)}), 1,
                    x.dim(3), x.dim(1), x.dim(2));
}

std::vector<double> Doubles(const Tensor& x) {
  return (x.dtype() == DType::kFloat64 ? x : Cast(x, DType::kFloat64))
      .ToVector<double>();
}

}  // namespace

// Both halves: a convolution, levels with a middle before or behind them, a
// norm and a convolution, and a product by pixel at the side of the latents.
struct Autoencoder::Half {
  Half(AutoencoderWeights& weights, const AutoencoderConfig& config,
       const std::string& name, bool encodes);

  Tensor Middle(Tensor x) const {
    x = middle_blocks[0](x);
    if (attention.has_value()) x = (*attention)(x);
    return middle_blocks[1](x);
  }
  Tensor Levels(Tensor x, bool encodes) const {
    for (const Level& level : levels) {
      for (const ResidualBlock& block : level.blocks) x = block(x);
      if (!level.resample.has_value()) continue;
      if (!encodes) x = DoubleNearest(x);
      x = (*level.resample)(x);
    }
    return x;
  }
  Tensor Ends(Tensor x) const {
    x = norm_out(x, Activation::kSilu);
    return conv_out(x);
  }

  ConvolutionLayer conv_in;
  std::vector<Level> levels;
  std::vector<ResidualBlock> middle_blocks;
  std::optional<AttentionBlock> attention;
  GroupNormLayer norm_out;
  ConvolutionLayer conv_out;
  std::optional<ConvolutionLayer> by_pixel;
};

Autoencoder::Half::Half(AutoencoderWeights& weights,
                        const AutoencoderConfig& config,
                        const std::string& name, bool encodes)
    : conv_in(weights, name + ".conv_in",
              encodes ? config.picture_channels : config.latent_channels,
              encodes ? config.channels.front() : config.channels.back(), 3),
      norm_out(weights, name + ".conv_norm_out",
               encodes ? config.channels.back() : config.channels.front(),
               config.groups),
      conv_out(weights, name + ".conv_out",
               encodes ? config.channels.back() : config.channels.front(),
               encodes ? 2 * config.latent_channels : config.picture_channels,
               3) {
  std::vector<int64_t> channels = config.channels;
  if (!encodes) std::reverse(channels.begin(), channels.end());
  int64_t in = channels.front();
  for (size_t i = 0; i < channels.size(); ++i) {
    const std::string of_level =
        fmt::format("{}.{}_blocks.{}", name, encodes ? "down" : "up", i);
    Level& level = levels.emplace_back();
    for (int64_t k = 0; k < config.blocks + (encodes ? 0 : 1); ++k) {
      level.blocks.emplace_back(weights,
                                fmt::format("{}.resnets.{}", of_level, k), in,
                                channels[i], config.groups);
      in = channels[i];
    }
    if (i + 1 == channels.size()) break;
    if (encodes) {
      level.resample.emplace(
          weights, of_level + ".downsamplers.0.conv", in, in, 3,
          ConvolutionOptions{.stride = 2, .padding_after = 1});
    } else {
      level.resample.emplace(weights, of_level + ".upsamplers.0.conv", in, in,
                             3);
    }
  }
  const int64_t inner = config.channels.back();
  for (const int i : {0, 1}) {
    middle_blocks.emplace_back(weights,
                               fmt::format("{}.mid_block.resnets.{}", name, i),
                               inner, inner, config.groups);
  }
  if (config.attention) {
    attention.emplace(weights, name + ".mid_block.attentions.0", inner,
                      config.groups);
  }
  if (encodes ? config.quant_convolution : config.post_quant_convolution) {
    const int64_t latents = (encodes ? 2 : 1) * config.latent_channels;
    by_pixel.emplace(weights, encodes ? "quant_conv" : "post_quant_conv",
                     latents, latents, 1);
  }
}

Autoencoder::Autoencoder(const AutoencoderConfig& config,
                         AutoencoderWeights& weights,
                         const AutoencoderOptions& options)
    : config_(config) {
  weights.set_reading(options.encoder);
  encoder_ = std::make_unique<Half>(weights, config_, "encoder",
                                    /*encodes=*/true);
  weights.set_reading(options.decoder);
  decoder_ = std::make_unique<Half>(weights, config_, "decoder",
                                    /*encodes=*/false);
  if (!options.encoder) encoder_.reset();
  if (!options.decoder) decoder_.reset();
}

std::unique_ptr<Autoencoder> Autoencoder::WithoutValues(
    const AutoencoderConfig& config, Device& device,
    const AutoencoderOptions& options) {
  CHECK(device.dry()) << "weights without values";
  AutoencoderWeights weights(device, options.dtype, nullptr);
  return std::unique_ptr<Autoencoder>(
      new Autoencoder(config, weights, options));
}

Autoencoder::~Autoencoder() = default;

absl::StatusOr<std::unique_ptr<Autoencoder>> Autoencoder::Open(
    const std::string& folder, Device& device,
    const AutoencoderOptions& options) {
  ASSIGN_OR_RETURN(const AutoencoderConfig config,
                   ReadAutoencoderConfig(folder));
  ASSIGN_OR_RETURN(const std::shared_ptr<const FolderTensors> files,
                   FolderTensors::Open(folder));
  AutoencoderWeights weights(device, options.dtype, files.get());
  std::unique_ptr<Autoencoder> autoencoder(
      new Autoencoder(config, weights, options));
  RETURN_IF_ERROR(weights.Finish());
  return autoencoder;
}

Autoencoder::Posterior Autoencoder::Encode(const Tensor& pictures) const {
  CHECK(encoder_ != nullptr) << "only the decoder was asked for";
  CHECK_EQ(pictures.dim(1), config_.picture_channels);
  CHECK(std::min(pictures.dim(2), pictures.dim(3)) >= config_.reduction())
      << pictures.shape();
  Tensor x = encoder_->conv_in(ChannelsLast(pictures));
  x = encoder_->Middle(encoder_->Levels(std::move(x), /*encodes=*/true));
  x = encoder_->Ends(std::move(x));
  if (encoder_->by_pixel.has_value()) x = (*encoder_->by_pixel)(x);
  x = ChannelsFirst(x);
  Posterior posterior;
  posterior.shape = {x.dim(0), config_.latent_channels, x.dim(2), x.dim(3)};
  const std::vector<double> values = Doubles(x);
  const int64_t half = posterior.shape.num_elements() / x.dim(0);
  for (size_t i = 0; i < values.size(); ++i) {
    if (static_cast<int64_t>(i) / half % 2 == 0) {
      posterior.mean.push_back(values[i]);
    } else {
      posterior.log_variance.push_back(
          std::clamp(values[i], kLeastLogVariance, kMostLogVariance));
    }
  }
  return posterior;
}

Tensor Autoencoder::Decode(const Tensor& latents) const {
  CHECK(decoder_ != nullptr) << "only the encoder was asked for";
  CHECK_EQ(latents.dim(1), config_.latent_channels);
  Tensor x = ChannelsLast(latents);
  if (decoder_->by_pixel.has_value()) x = (*decoder_->by_pixel)(x);
  x = decoder_->Middle(decoder_->conv_in(x));
  x = decoder_->Levels(std::move(x), /*encodes=*/false);
  return ChannelsFirst(decoder_->Ends(std::move(x)));
}

}  // namespace trireme
