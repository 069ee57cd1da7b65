#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include "models/autoencoder/autoencoder.h"
#include "models/autoencoder/latent_encoder.h"
#include "models/image/resize.h"
#include "models/image/transform.h"
#include "models/weights/folder_tensors.h"
#include "runtime/core/status.h"
#include "runtime/device/host.h"

namespace trireme {
namespace {

constexpr int64_t kMostSide = 1 << 14;

absl::StatusOr<LatentPosterior> EncodePicture(const Autoencoder& autoencoder,
                                              int side, Device& device,
                                              const Sample& sample) {
  const auto channels = static_cast<int>(autoencoder.config().picture_channels);
  if (!IsValid(sample.image)) {
    return InvalidArgument("{}: no picture", sample.key);
  }
  const Image picture =
      WithChannels(ResizeAndCrop(sample.image, side, side), channels);
  std::vector<float> pixels(picture.pixels.size());
  ToFloat(picture, pixels);
  Autoencoder::Posterior posterior = autoencoder.Encode(
      Upload<float>(device, {1, channels, side, side}, pixels));
  RETURN_IF_ERROR(device.status());
  return LatentPosterior{std::move(posterior.mean),
                         std::move(posterior.log_variance)};
}

}  // namespace

absl::StatusOr<LatentEncoder> PictureLatentEncoder(const std::string& folder,
                                                   int64_t side,
                                                   Device& device) {
  ASSIGN_OR_RETURN(std::shared_ptr<const Autoencoder> autoencoder,
                   Autoencoder::Open(folder, device, {.decoder = false}));
  const AutoencoderConfig& config = autoencoder->config();
  if (side < 1 || side > kMostSide || side % config.reduction() != 0) {
    return InvalidArgument(
        "resolution: found {}, expected a multiple of {} up to {}", side,
        config.reduction(), kMostSide);
  }
  ASSIGN_OR_RETURN(const auto files, FolderTensors::Open(folder));
  std::error_code error;
  return LatentEncoder{
      .autoencoder = std::filesystem::absolute(folder, error).native(),
      .weights_checksum = files->Checksum(),
      .format = {.channels = config.latent_channels,
                 .height = side / config.reduction(),
                 .width = side / config.reduction(),
                 .scale = config.scale,
                 .shift = config.shift},
      .encode = [autoencoder, side = static_cast<int>(side),
                 &device](const Sample& sample) {
        return EncodePicture(*autoencoder, side, device, sample);
      }};
}

}  // namespace trireme
