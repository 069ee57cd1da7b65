#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

#include "models/autoencoder/autoencoder.h"
#include "models/autoencoder/latent_encoder.h"
#include "models/data/buckets.h"
#include "models/image/resize.h"
#include "models/image/transform.h"
#include "models/weights/folder_tensors.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/device/host.h"

namespace trireme {
namespace {

constexpr int64_t kMostSide = 1 << 14;

struct Sizes {
  std::vector<PictureSize> pictures;
  bool enlarge = false;
};

absl::StatusOr<LatentPosterior> EncodePicture(const Autoencoder& autoencoder,
                                              const Sizes& sizes,
                                              Device& device,
                                              const Sample& sample) {
  const auto channels = static_cast<int>(autoencoder.config().picture_channels);
  if (!IsValid(sample.image)) {
    return InvalidArgument("{}: no picture", sample.key);
  }
  const PictureSize found = {sample.image.height, sample.image.width};
  const auto bucket = BucketOf(sizes.pictures, found, sizes.enlarge);
  if (!bucket.has_value()) {
    return InvalidArgument("{}: a picture of {}x{}, smaller than every size",
                           sample.key, found.height, found.width);
  }
  const PictureSize& size = sizes.pictures[*bucket];
  const Image picture =
      WithChannels(ResizeAndCrop(sample.image, static_cast<int>(size.width),
                                 static_cast<int>(size.height)),
                   channels);
  std::vector<float> pixels(picture.pixels.size());
  ToFloat(picture, pixels);
  Autoencoder::Posterior posterior = autoencoder.Encode(
      Upload<float>(device, {1, channels, size.height, size.width}, pixels));
  RETURN_IF_ERROR(device.status());
  const int64_t reduction = autoencoder.config().reduction();
  return LatentPosterior{{size.height / reduction, size.width / reduction},
                         std::move(posterior.mean),
                         std::move(posterior.log_variance)};
}

absl::Status CheckSizes(const std::vector<PictureSize>& sizes,
                        int64_t reduction) {
  for (const PictureSize& size : sizes) {
    for (const int64_t side : {size.height, size.width}) {
      if (side >= 1 && side <= kMostSide && side % reduction == 0) continue;
      return InvalidArgument(
          "size {}x{}: found a side of {}, expected a multiple of {} up to {}",
          size.height, size.width, side, reduction, kMostSide);
    }
  }
  return absl::OkStatus();
}

LatentFormat FormatOf(const AutoencoderConfig& config,
                      const std::vector<PictureSize>& pictures) {
  std::vector<PictureSize> sizes;
  for (const PictureSize& size : pictures) {
    sizes.push_back(
        {size.height / config.reduction(), size.width / config.reduction()});
  }
  LatentFormat format = {.channels = config.latent_channels,
                         .height = sizes.front().height,
                         .width = sizes.front().width,
                         .scale = config.scale,
                         .shift = config.shift};
  if (sizes.size() > 1 || format.height != format.width) {
    format.sizes = std::move(sizes);
  }
  return format;
}

}  // namespace

absl::StatusOr<LatentEncoder> PictureLatentEncoder(
    const std::string& folder, std::vector<PictureSize> sizes, bool enlarge,
    Device& device) {
  CHECK(!sizes.empty());
  ASSIGN_OR_RETURN(std::shared_ptr<const Autoencoder> autoencoder,
                   Autoencoder::Open(folder, device, {.decoder = false}));
  const AutoencoderConfig& config = autoencoder->config();
  RETURN_IF_ERROR(CheckSizes(sizes, config.reduction()));
  SortSizes(sizes);
  ASSIGN_OR_RETURN(const auto files, FolderTensors::Open(folder));
  std::error_code error;
  return LatentEncoder{
      .autoencoder = std::filesystem::absolute(folder, error).native(),
      .weights_checksum = files->Checksum(),
      .format = FormatOf(config, sizes),
      .skips_smaller = !enlarge,
      .encode = [autoencoder, sizes = Sizes{std::move(sizes), enlarge},
                 &device](const Sample& sample) {
        return EncodePicture(*autoencoder, sizes, device, sample);
      }};
}

}  // namespace trireme
