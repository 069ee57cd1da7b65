#include <filesystem>
#include <limits>
#include <memory>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "models/autoencoder/autoencoder.h"
#include "models/autoencoder/latent_encoder.h"
#include "models/data/views.h"
#include "models/shape/view_channels.h"
#include "models/weights/folder_tensors.h"
#include "runtime/core/status.h"
#include "runtime/device/host.h"

namespace trireme {
namespace {

// What is known has no variance.
constexpr double kNoLogVariance = -std::numeric_limits<double>::infinity();

class ViewEncoder {
 public:
  ViewEncoder(std::shared_ptr<const Autoencoder> autoencoder, int64_t views,
              int64_t side, Device& device)
      : autoencoder_(std::move(autoencoder)),
        pictures_(LayoutOfViews(views, side)),
        device_(device) {
    const AutoencoderConfig& config = autoencoder_->config();
    latents_ = {.channels = 2 * config.latent_channels + kRayChannels,
                .views = views,
                .height = side / config.reduction(),
                .width = side / config.reduction()};
  }

  LatentFormat Format() const {
    const AutoencoderConfig& config = autoencoder_->config();
    return {.channels = latents_.channels,
            .height = latents_.views * latents_.height,
            .width = latents_.width,
            .scale = config.scale,
            .shift = config.shift,
            .views = latents_.views,
            .extra_channels = kRayChannels};
  }

  absl::StatusOr<LatentPosterior> Encode(const Sample& sample) const {
    const std::vector<float>& pixels = sample.views.channels;
    if (static_cast<int64_t>(pixels.size()) != pictures_.elements()) {
      return InvalidArgument("{}: found {} views, expected {} of {} pixels",
                             sample.key, sample.views.cameras.size(),
                             pictures_.views, pictures_.width);
    }
    LatentPosterior posterior = {
        .size = {latents_.views * latents_.height, latents_.width},
        .mean = std::vector<double>(latents_.elements()),
        .log_variance =
            std::vector<double>(latents_.elements(), kNoLogVariance)};
    const int64_t channels = autoencoder_->config().latent_channels;
    for (int64_t view = 0; view < latents_.views; ++view) {
      const auto channels_of = [&](int64_t first, int64_t count) {
        return ChannelsOfView(std::span(pixels), pictures_, view, first, count);
      };
      RETURN_IF_ERROR(
          EncodePicture(channels_of(0, kColorChannels), view, 0, posterior));
      // As a gray picture.
      std::vector<float> depth;
      for (int64_t c = 0; c < kColorChannels; ++c) {
        const std::vector<float> one = channels_of(kDepthChannel, 1);
        depth.insert(depth.end(), one.begin(), one.end());
      }
      RETURN_IF_ERROR(EncodePicture(depth, view, channels, posterior));
      const std::vector<float> rays = CameraRays(
          sample.views.cameras[view], static_cast<int>(latents_.width));
      Put(std::vector<double>(rays.begin(), rays.end()), view, 2 * channels,
          posterior.mean);
    }
    return posterior;
  }

 private:
  // [kColorChannels, side, side] to the view's latents from channel `first` on.
  absl::Status EncodePicture(const std::vector<float>& pixels, int64_t view,
                             int64_t first, LatentPosterior& posterior) const {
    const Autoencoder::Posterior encoded = autoencoder_->Encode(Upload<float>(
        device_, {1, kColorChannels, pictures_.height, pictures_.width},
        pixels));
    RETURN_IF_ERROR(device_.status());
    Put(encoded.mean, view, first, posterior.mean);
    Put(encoded.log_variance, view, first, posterior.log_variance);
    return absl::OkStatus();
  }

  void Put(const std::vector<double>& values, int64_t view, int64_t first,
           std::vector<double>& latents) const {
    PutChannelsOfView(std::span(values), latents_, view, first,
                      std::span(latents));
  }

  std::shared_ptr<const Autoencoder> autoencoder_;
  ViewLayout pictures_;
  ViewLayout latents_;
  Device& device_;
};

}  // namespace

absl::StatusOr<LatentEncoder> ViewLatentEncoder(const std::string& folder,
                                                int64_t views, int64_t side,
                                                Device& device) {
  ASSIGN_OR_RETURN(std::shared_ptr<const Autoencoder> autoencoder,
                   Autoencoder::Open(folder, device, {.decoder = false}));
  const AutoencoderConfig& config = autoencoder->config();
  if (config.picture_channels != kColorChannels) {
    return FailedPrecondition("{}: found pictures of {} channels, expected {}",
                              folder, config.picture_channels, kColorChannels);
  }
  if (side % config.reduction() != 0) {
    return InvalidArgument(
        "views: found a side of {} pixels, expected a multiple of {} (trireme "
        "data --shapes --views N --view_resolution S)",
        side, config.reduction());
  }
  ASSIGN_OR_RETURN(const auto files, FolderTensors::Open(folder));
  const ViewEncoder encoder(std::move(autoencoder), views, side, device);
  std::error_code error;
  return LatentEncoder{
      .autoencoder = std::filesystem::absolute(folder, error).native(),
      .weights_checksum = files->Checksum(),
      .format = encoder.Format(),
      .encode = [encoder](const Sample& sample) {
        return encoder.Encode(sample);
      }};
}

}  // namespace trireme
