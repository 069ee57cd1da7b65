#include "models/shape_vae/shape_vae_config.h"

#include <string_view>

#include "models/transformer/size_limits.h"
#include "runtime/core/check_range.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Bounds that no real model passes; they keep products of sizes in 64 bits.
constexpr int64_t kMaxLatents = 1 << 16;
constexpr int64_t kMaxPoints = 1 << 22;
// Beyond them 2^i x is nothing but rounding in fp32.
constexpr int64_t kMaxFrequencies = 20;

ShapeVaeConfig PresetConfig(ShapeVae::Preset preset) {
  ShapeVaeConfig config;
  switch (preset) {
    case ShapeVae::TINY:
      config.latents = 64;
      config.channels = 16;
      config.encoder_hidden = 96;
      config.decoder_hidden = 128;
      config.encoder_layers = 2;
      config.decoder_layers = 3;
      config.heads = 4;
      config.frequencies = 4;
      break;
    case ShapeVae::TRIPOSG:
      config.latents = 2048;
      config.channels = 64;
      config.encoder_hidden = 512;
      config.decoder_hidden = 1024;
      config.encoder_layers = 8;
      config.decoder_layers = 16;
      config.heads = 8;
      config.points = 20480;
      config.queries = 4096;
      break;
    default:
      break;
  }
  return config;
}

absl::Status CheckHidden(std::string_view field, int64_t hidden,
                         int64_t heads) {
  RETURN_IF_ERROR(CheckRange(field, hidden, 1, size_limits::kHidden));
  if (hidden % heads == 0 && hidden / heads <= size_limits::kHeadDim) {
    return absl::OkStatus();
  }
  return InvalidArgument(
      "{}: found {}, expected a multiple of the {} heads, of "
      "at most {} channels each",
      field, hidden, heads, size_limits::kHeadDim);
}

absl::Status ResolveLosses(const ShapeVae::Losses& given,
                           ShapeVaeLosses& losses) {
  if (given.has_truncation()) losses.truncation = given.truncation();
  if (given.has_normal()) losses.normal = given.normal();
  if (given.has_eikonal()) losses.eikonal = given.eikonal();
  if (given.has_difference_step()) {
    losses.difference_step = given.difference_step();
  }
  if (given.has_divergence()) losses.divergence = given.divergence();
  losses.occupancy = given.occupancy();
  RETURN_IF_ERROR(CheckRange("model.shape_vae.losses.truncation",
                             losses.truncation, 1e-4, 10));
  RETURN_IF_ERROR(
      CheckRange("model.shape_vae.losses.normal", losses.normal, 0, 1e6));
  RETURN_IF_ERROR(
      CheckRange("model.shape_vae.losses.eikonal", losses.eikonal, 0, 1e6));
  if (losses.occupancy && losses.eikonal > 0) {
    return InvalidArgument(
        "model.shape_vae.losses.eikonal: found {} with occupancy, expected 0: "
        "its gradient has no length to learn",
        losses.eikonal);
  }
  RETURN_IF_ERROR(CheckRange("model.shape_vae.losses.difference_step",
                             losses.difference_step, 1e-4, 0.1));
  return CheckRange("model.shape_vae.losses.divergence", losses.divergence, 0,
                    1e6);
}

}  // namespace

absl::StatusOr<ShapeVaeConfig> ResolveShapeVae(const ShapeVae& vae) {
  ShapeVaeConfig config = PresetConfig(vae.preset());
  if (vae.has_latents()) config.latents = vae.latents();
  if (vae.has_channels()) config.channels = vae.channels();
  if (vae.has_encoder_hidden()) config.encoder_hidden = vae.encoder_hidden();
  if (vae.has_decoder_hidden()) config.decoder_hidden = vae.decoder_hidden();
  if (vae.has_encoder_layers()) config.encoder_layers = vae.encoder_layers();
  if (vae.has_decoder_layers()) config.decoder_layers = vae.decoder_layers();
  if (vae.has_heads()) config.heads = vae.heads();
  if (vae.has_frequencies()) config.frequencies = vae.frequencies();
  if (vae.has_points()) config.points = vae.points();
  if (vae.has_queries()) config.queries = vae.queries();
  RETURN_IF_ERROR(
      CheckRange("model.shape_vae.latents", config.latents, 1, kMaxLatents));
  RETURN_IF_ERROR(CheckRange("model.shape_vae.channels", config.channels, 1,
                             size_limits::kHidden));
  RETURN_IF_ERROR(CheckRange("model.shape_vae.heads", config.heads, 1,
                             size_limits::kHidden));
  RETURN_IF_ERROR(CheckHidden("model.shape_vae.encoder_hidden",
                              config.encoder_hidden, config.heads));
  RETURN_IF_ERROR(CheckHidden("model.shape_vae.decoder_hidden",
                              config.decoder_hidden, config.heads));
  RETURN_IF_ERROR(CheckRange("model.shape_vae.encoder_layers",
                             config.encoder_layers, 0, size_limits::kLayers));
  RETURN_IF_ERROR(CheckRange("model.shape_vae.decoder_layers",
                             config.decoder_layers, 1, size_limits::kLayers));
  RETURN_IF_ERROR(CheckRange("model.shape_vae.frequencies", config.frequencies,
                             1, kMaxFrequencies));
  RETURN_IF_ERROR(CheckRange("model.shape_vae.points", config.points,
                             config.latents, kMaxPoints));
  RETURN_IF_ERROR(
      CheckRange("model.shape_vae.queries", config.queries, 1, kMaxPoints));
  RETURN_IF_ERROR(ResolveLosses(vae.losses(), config.losses));
  return config;
}

void FillShapeVae(const ShapeVaeConfig& config, ShapeVae& vae) {
  vae.set_latents(static_cast<uint32_t>(config.latents));
  vae.set_channels(static_cast<uint32_t>(config.channels));
  vae.set_encoder_hidden(static_cast<uint32_t>(config.encoder_hidden));
  vae.set_decoder_hidden(static_cast<uint32_t>(config.decoder_hidden));
  vae.set_encoder_layers(static_cast<uint32_t>(config.encoder_layers));
  vae.set_decoder_layers(static_cast<uint32_t>(config.decoder_layers));
  vae.set_heads(static_cast<uint32_t>(config.heads));
  vae.set_frequencies(static_cast<uint32_t>(config.frequencies));
  vae.set_points(static_cast<uint32_t>(config.points));
  vae.set_queries(static_cast<uint32_t>(config.queries));
  ShapeVae::Losses& losses = *vae.mutable_losses();
  losses.set_truncation(config.losses.truncation);
  losses.set_normal(config.losses.normal);
  losses.set_eikonal(config.losses.eikonal);
  losses.set_difference_step(config.losses.difference_step);
  losses.set_divergence(config.losses.divergence);
  losses.set_occupancy(config.losses.occupancy);
}

}  // namespace trireme
